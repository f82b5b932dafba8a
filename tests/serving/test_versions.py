"""A newer version takes over while requests run, and none of them is lost."""

import re
import shutil
import threading

import numpy as np
import pytest

from helpers.serving.plain_model import PlainModel, write_plain_model
from helpers.serving.running import LocalServer, serve_here

pytestmark = pytest.mark.process

TEXT = "an owl on a branch"


def embedding(version):
    model = PlainModel(shift=float(version))
    return model.encode_text([TEXT])["text_embeds"].numpy()[0]


def states(server):
    found = server.http.get("/v1/models/clip").json()["model_version_status"]
    return {state["version"]: state["state"] for state in found}


def test_versions_change_and_no_request_is_lost(tmp_path):
    """A newer version takes over under load, an older one when it is removed; a broken one changes nothing."""
    models = tmp_path / "models"
    write_plain_model(models, 1)
    (models / "serving").mkdir()  # other folders are no versions
    with LocalServer(models, "--batch-timeout-ms", "1") as server:
        answers, stop = [], threading.Event()

        def ask():
            while not stop.is_set():
                answers.append(server.predict({"signature_name": "encode_text", "inputs": [TEXT]}))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        write_plain_model(models, 2)
        server.wait_for_line("version 2 answers", 60)
        server.wait_for_line("version 1 is unloaded", 60)
        # Until then the old version may have answered them all.
        before = len(answers)
        while len(answers) < before + 100:
            stop.wait(0.01)
        stop.set()
        for thread in threads:
            thread.join(60)
        assert {answer.status_code for answer in answers} == {200}
        found = np.array([answer.json()["outputs"]["text_embeds"][0] for answer in answers])
        kinds = np.array([np.abs(found - embedding(version)).max(axis=1) < 1e-6 for version in (1, 2)])
        # Each is wholly one version's, and both were asked.
        assert (kinds.sum(axis=0) == 1).all() and kinds.any(axis=1).all()
        assert states(server) == {"2": "AVAILABLE"}
        assert server.http.get("/v1/models/clip/versions/1/metadata").status_code == 404

        # A request that is being answered keeps its version.
        slow = []
        thread = threading.Thread(target=lambda: slow.append(server.columns("slow", rounds=[20_000])))
        thread.start()
        write_plain_model(models, 3)
        server.wait_for_line("version 3 answers", 60)
        assert states(server) == {"3": "AVAILABLE", "2": "UNLOADING"}
        thread.join(120)
        assert slow == [[20_000.0]]
        server.wait_for_line("version 2 is unloaded", 60)

        # Back to an older one, as an operator does who takes a version away.
        shutil.rmtree(models / "3")
        server.wait_for_line("version 2 answers", 60)

        # A broken one is tried once, and again when its files have changed.
        (models / "4").mkdir()
        (models / "4" / "saved_model.pb").write_bytes(b"half a file")
        assert "version 2 goes on" in server.wait_for_line("version 4 cannot be loaded", 60)
        assert states(server) == {"2": "AVAILABLE", "4": "END"}
        assert server.is_well()
        shutil.rmtree(models / "4")
        write_plain_model(models, 4)
        server.wait_for_line("version 4 answers", 60)
        assert sum("cannot be loaded" in line for line in server.lines) == 1


@pytest.mark.parametrize("kind", ["empty", "missing", "a version itself", "broken"])
def test_folders_that_hold_no_model(tmp_path, plain_model, kind):
    folder = tmp_path / "models"
    if kind != "missing":
        folder.mkdir()
    if kind == "a version itself":
        folder = plain_model / "1"
    if kind == "broken":
        (folder / "1").mkdir()
        (folder / "1" / "saved_model.pb").write_bytes(b"half a file")
    with pytest.raises((FileNotFoundError, ValueError), match=f"`MODEL_DIR` .*{re.escape(str(folder))}"):
        serve_here(folder, port=0)
