"""`tf-clip models`: the table of published checkpoints."""

import json

from tf_clip.cli.main import main


def test_models_lists_what_is_published(capsys):
    assert main(["models", "dfn5b", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["model"] for row in rows] == ["apple/DFN5B-CLIP-ViT-H-14", "apple/DFN5B-CLIP-ViT-H-14-378"]
    assert rows[0]["parameters"] == 986_109_441
    assert main(["models", "openai"]) == 0
    shown = capsys.readouterr().out
    assert "openai/clip-vit-base-patch32" in shown and "151 M" in shown
    assert main(["models", "nothing"]) == 2


def test_models_ids_can_be_copied_from_a_narrow_terminal(capsys, monkeypatch):
    from tf_clip import known_models

    monkeypatch.setattr("tf_clip.cli.tables._output.width", 100, raising=False)
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for model in known_models():
        (line,) = [line for line in lines if line.split(" ")[0] == model.hub_id]
        assert model.architecture in line
    assert "Apple, DFN-5B, apple-amlr" in [line.strip() for line in lines]
