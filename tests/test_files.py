"""Files and folders that appear whole, or not at all."""

import stat

import pytest

from tf_clip import files
from tf_clip.errors import require


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_when_its_block_is_done(tmp_path):
    path = tmp_path / "new" / "data.json"
    files.write_text(path, "old\n")
    plain = tmp_path / "plain"
    plain.write_text("")
    with files.replacing_file(path) as written:
        written.write_text("é", encoding="utf-8")
        assert path.read_text() == "old\n"
        assert written.suffix == ".json"  # NumPy adds another where its own is missing
    assert path.read_text(encoding="utf-8") == "é"
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    assert names(path.parent) == ["data.json"]


def test_a_file_stays_when_writing_fails(tmp_path):
    path = tmp_path / "data.json"
    path.write_text("old")
    with pytest.raises(KeyError), files.replacing_file(path) as written:
        written.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    assert names(tmp_path) == ["data.json"]


def test_several_files_come_together_and_leave_others(tmp_path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for name in ("weights", "vocabulary"):
        (folder / name).write_text("old")
    for fails in (True, False):
        try:
            with files.replacing_files(folder) as written:
                (written / "weights").write_text("new")
                (written / "config").write_text("new")
                if fails:
                    raise KeyError
        except KeyError:
            assert names(folder) == ["vocabulary", "weights"]
            assert (folder / "weights").read_text() == "old"
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "weights": "new",
        "config": "new",
        "vocabulary": "old",
    }
    assert names(tmp_path) == ["checkpoint"]


def test_a_folder_is_replaced_whole(tmp_path):
    folder = tmp_path / "models" / "1"
    for content in ("first", "second"):
        with files.replacing_folder(folder) as written:
            (written / "inner").mkdir()
            (written / "inner" / content).write_text(content)
            assert written.name == "1"
    assert names(folder / "inner") == ["second"]
    with pytest.raises(KeyError), files.replacing_folder(folder) as written:
        raise KeyError
    assert names(folder / "inner") == ["second"]
    assert names(folder.parent) == ["1"]


def test_what_a_killed_program_left_is_removed(tmp_path):
    path = tmp_path / "state[1]"
    for name in (".state[1]-a8", ".state1-a8"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state").write_text("half")
    files.remove_unfinished(path)
    assert names(tmp_path) == [".state1-a8"]


def test_paths_may_be_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files.write_text("a.txt", "a")
    with files.replacing_files(".") as written:
        (written / "b.txt").write_text("b")
    with files.replacing_folder("c") as written:
        (written / "d").write_text("d")
    assert names(tmp_path) == ["a.txt", "b.txt", "c"]


def test_an_argument_that_breaks_its_rule_is_refused():
    require(True, "size", "at least 1", 0, "Take 32.")
    with pytest.raises(ValueError, match=r"^`size` must be at least 1\. Received: size=0\. Take 32\.$"):
        require(False, "size", "at least 1", 0, "Take 32.")
