"""Tables, bars and messages in a terminal."""

import io
import json
import os

import pytest
from rich.console import Console

from tf_clip.cli import tables


@pytest.fixture
def screen(monkeypatch):
    """Makes a console of a width; returns what it shows."""

    def make(width):
        shown = io.StringIO()
        monkeypatch.setattr(tables, "_output", Console(file=shown, width=width, highlight=False))
        monkeypatch.setattr(tables, "_messages", Console(file=shown, width=width, highlight=False))
        return shown

    return make


@pytest.mark.parametrize(("score", "drawn"), [(0.0, ""), (1.0, "█" * 24), (0.5, "█" * 12), (0.01, "▎"), (-1.0, "")])
def test_bars(score, drawn):
    assert tables.bar(score) == drawn


def test_scores_are_a_table_with_bars(screen):
    shown = screen(80)
    tables.show_scores([("owl.png", [("an [red]owl[/red]", 0.875), ("a bus", 0.125)])], ("image", "label"))
    head, first, second = (line.split() for line in shown.getvalue().splitlines())
    assert head == ["image", "label", "score"]
    assert first == ["owl.png", "an", "[red]owl[/red]", "0.875", "█" * 21]
    assert second == ["a", "bus", "0.125", "█" * 3]


def test_the_first_column_stays_in_one_piece(screen):
    shown = screen(40)
    name = "somebody/a-model-with-a-long-name"
    tables.show_groups({"by somebody": [(name, "one two three four")]}, ("model", "said"))
    assert any(line.split()[0] == name for line in shown.getvalue().splitlines() if line.strip())


def test_what_was_skipped_is_told_and_sets_the_status(screen):
    shown = screen(80)
    assert tables.report([]) == 0
    assert tables.report([{"image": "a.png", "reason": "no image"}, {"where": "t.csv:2", "reason": "empty"}]) == 1
    assert shown.getvalue() == "skipped a.png: no image\nskipped t.csv:2: empty\n"


def test_a_file_name_that_is_no_text_can_be_printed(capsys):
    name = os.fsdecode(b"caf\xe9.png")
    tables.print_json({"image": name})
    assert json.loads(capsys.readouterr().out) == {"image": name}
    assert tables.printable(name) == "caf\\udce9.png"
