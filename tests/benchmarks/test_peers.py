"""`make bench`: its driver on fake libraries, what it makes of figures, and its page. No peer is needed."""

import json
import sys
import time
from pathlib import Path

import measure
import numpy as np
import page
import pytest
import results
from library import Inputs
from peers import ALL, BASE, MATMUL, groups
from process import Process, WorkerError
from works import Work

PEERS = Path(measure.__file__).parent
FAKES = """
import os
import time
import numpy as np
from library import Library

class Fast(Library):
    imports = ("json",)
    seconds, value = 0.002, 1.0
    def image(self, images, texts):
        def call():
            time.sleep(self.seconds)
            print("what a library prints")
            return np.array([[self.value, 2.0]] * images)
        return call

class Slow(Fast):
    seconds = 0.02

class Other(Fast):
    value = 1.1

class Broken(Fast):
    def image(self, images, texts):
        raise ValueError("no such layer")

class Dying(Fast):
    def image(self, images, texts):
        call, calls = super().image(images, texts), []
        def die():
            calls.append(1)
            if len(calls) > 2:
                os._exit(3)
            return call()
        return die

class Hanging(Fast):
    def image(self, images, texts):
        time.sleep(60)

class Unloadable(Fast):
    def load(self):
        raise OSError("no weights")
"""


@pytest.fixture
def inputs_folder(tmp_path):
    ids = np.array([[7, 1, 9, 0, 0], [7, 1, 2, 9, 0], [7, 1, 2, 3, 9]])
    arrays = {"input_ids": ids, "attention_mask": (ids > 0).astype(int), "class_embeds": np.ones((2, 2))}
    np.savez(tmp_path / "inputs.npz", **arrays, pixel_values=np.arange(24.0).reshape(2, 2, 2, 3))
    (tmp_path / "captions.txt").write_text("one\ntwo\nthree\n")
    return tmp_path


@pytest.fixture
def start(inputs_folder):
    """Starts a fake library's worker."""
    (inputs_folder / "fakes.py").write_text(FAKES)
    started = []

    def call(name, *words, timeout=60.0):
        command = [sys.executable, str(PEERS / "worker.py"), f"fakes:{name}", "", str(inputs_folder), *words]
        process = Process(command, inputs_folder / f"{name}.log", {"PYTHONPATH": str(inputs_folder)}, timeout)
        started.append(process)
        return process

    yield call
    for process in started:
        process.close()


@pytest.mark.process
def test_rounds_over_workers(start):
    workers = {name: start(library) for name, library in ((BASE, "Fast"), ("slow", "Slow"), ("other", "Other"))}
    workers |= {"broken": start("Broken"), "dying": start("Dying")}
    said = []
    options = {"rounds": 4, "seconds": 0.02, "until": time.monotonic() + 100}
    found = measure.measured(Work("image", images=2), workers, say=said.append, **options)
    assert set(found["times"]) == {BASE, "slow"}
    assert len(found["times"]["slow"]) == 4
    assert set(found["errors"]) == {"other", "broken", "dying"}
    assert "another result: off by" in found["errors"]["other"]
    assert found["errors"]["broken"] == "ValueError: no such layer"
    assert "it has ended" in found["errors"]["dying"]
    compared = measure.ratio(found["times"]["slow"], found["times"][BASE])
    assert compared["ratio"] > 1.2
    assert compared["spread"][0] <= compared["ratio"] <= compared["spread"][1]
    assert "image-2: round 4 of 4" in said


@pytest.mark.process
def test_rounds_end_when_time_is_up(start):
    workers = {BASE: start("Fast")}
    options = {"rounds": 50, "seconds": 0.0, "until": time.monotonic()}
    found = measure.measured(Work("image", images=1), workers, say=lambda _: None, **options)
    assert len(found["times"][BASE]) == measure.LEAST_ROUNDS


@pytest.mark.process
def test_a_worker_that_hangs_or_does_not_load_is_an_error(start):
    with pytest.raises(WorkerError, match="no answer for 1 seconds"):
        start("Hanging").close(), start("Hanging", timeout=1.0).ask("prepare", kind="image", images=1, texts=0)
    with pytest.raises(WorkerError, match="OSError: no weights"):
        start("Unloadable")


@pytest.mark.process
def test_a_start_is_measured(start, inputs_folder):
    (inputs_folder / "fakes.py").write_text(
        FAKES + "    text = Fast.image\nFast.text = lambda s, i, t: s.image(t, i)\n"
    )
    found = start("Fast", "--start").hello
    assert set(found) >= set(results.START)
    assert found["inference_bytes"] > 0 and found["first"] >= found["import"] >= 0.0


@pytest.mark.process
def test_whoever_waits_does_not_compute(start):
    worker = start("Fast")
    worker.ask("prepare", kind="image", images=1, texts=0)
    for _ in range(2000):
        state = Path(f"/proc/{worker._process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "T":
            break
        time.sleep(0.01)
    assert state == "T"


def test_results_that_differ_in_shape_or_are_not_numbers_are_refused():
    wanted = np.ones((2, 3))
    measure.require_same(Work("image", 2), wanted + 5e-5, wanted)
    measure.require_same(Work("end_to_end", 2, 3), wanted + 5e-3, wanted)
    for wrong in (np.ones((3, 2)), wanted + 5e-4, wanted * np.nan):
        with pytest.raises(WorkerError, match="another result"):
            measure.require_same(Work("image", 2), wrong, wanted)
    with pytest.raises(WorkerError, match="no result to compare with"):
        measure.require_same(Work("image", 2), wanted, None)


def test_records_go_on_after_an_interruption(tmp_path):
    path = tmp_path / "records.jsonl"
    records = measure.Records(path, {"rounds": 3})
    records.add({"record": "work", "work": "image-1"})
    with path.open("a") as file:
        file.write('{"record": "work", "work": "ima')
    again = measure.Records(path, {"rounds": 3})
    assert again.all == records.all
    again.add({"record": "work", "work": "image-8"})
    assert measure.Records(path, {"rounds": 3}).find(work="image-8") == {"record": "work", "work": "image-8"}
    assert measure.Records(path, {"rounds": 5}).all == []


def test_captions_are_padded_as_each_library_does(inputs_folder):
    inputs = Inputs(inputs_folder)
    longest = inputs.tokens(2)
    assert longest["input_ids"].tolist() == [[7, 1, 9, 9], [7, 1, 2, 9]]
    assert longest["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert inputs.tokens(1, length=5, padding=0)["input_ids"].tolist() == [[7, 1, 9, 0, 0]]
    assert inputs.pixels(1, channels_first=True)[0, 1].tolist() == [[1.0, 4.0], [7.0, 10.0]]


def test_the_base_is_beside_every_group():
    found = groups(list(ALL), 4)
    assert [peer.name for group in found for peer in group] == [peer.name for peer in ALL if peer.name != BASE]
    assert max(map(len, found)) == 4
    assert groups([ALL[0]], 4) == [[]]


@pytest.fixture
def records():
    """A run of two groups, in the second of which the machine was half as fast."""
    first = {
        "times": {BASE: [1.0, 1.0, 2.0], "transformers sdpa": [2.0, 2.0, 4.0]},
        "errors": {"OpenVINO": "no | file"},
    }
    second = {"times": {BASE: [2.0, 2.0, 2.0], "OpenCLIP": [3.0, 3.0, 3.0]}, "errors": {}}
    start = {"import": 1.0, "load": 1.0, "first": 3.0, "load_bytes": 150, "ready_bytes": 300, "inference_bytes": 700}
    return [
        {"record": "work", "work": "image-8", "group": ["a"], **first, "matmul": {MATMUL.name: [0.5, 0.5]}},
        {"record": "work", "work": "image-8", "group": ["b"], **second, "matmul": {MATMUL.name: [1.0, 1.0]}},
        {"record": "memory", "group": ["a"], "bytes": {BASE: 5}},
        {"record": "profile", "work": "image-8", "shares": {"MatMul": 0.75, "Softmax": 0.25}},
        {"record": "profile", "work": "text-1", "shares": {"MatMul": 0.995, "Sub": 0.005}},
        *({"record": "start", "round": number, "peer": BASE, **start} for number in range(3)),
        {"record": "start", "round": 1, "peer": "transformers sdpa", **start, "inference_bytes": 800, "load": 2.0},
        {"record": "start", "round": 0, "peer": "KerasHub", "error": "ImportError: no"},
        {
            "record": "command line",
            "times": {
                **{"import tf_clip": 0.1, "import tensorflow, whole process": 4.0, "import tensorflow": 3.8},
                **{"answer": 7.0, "compute": 1.0},
            },
        },
    ]


@pytest.fixture
def found(records, inputs_folder):
    (inputs_folder / "weights").mkdir()
    (inputs_folder / "weights" / "model.safetensors").write_bytes(bytes(100))
    return results.summary("tiny", [Work("image", 8), Work("text", texts=1)], inputs_folder, records)


def test_a_peer_is_compared_with_the_rounds_beside_it(found):
    peers = found["works"]["image-8"]["peers"]
    assert list(peers) == [BASE, "transformers sdpa", "OpenCLIP", "OpenVINO"]
    assert peers["transformers sdpa"]["ratio"] == 2.0
    assert peers["OpenCLIP"]["ratio"] == 1.5
    assert peers[BASE]["ratio"] == 1.0
    assert peers["OpenVINO"] == {"error": "no | file"}
    # Half as fast in both: the share stays.
    assert peers["transformers sdpa"]["share_of_peak"] == pytest.approx(peers[BASE]["share_of_peak"] / 2, rel=0.01)


def test_goals_say_what_is_reached_and_what_is_missing(found):
    goals = {goal["goal"]: goal for goal in found["goals"]}
    torch = goals["images, batch 8: speed against PyTorch's best"]
    assert torch == {**torch, "at_least": 1.25, "measured": 2.0, "reached": True}
    engines = goals["images, batch 8: speed against ONNX Runtime and OpenVINO"]
    assert engines["measured"] is None and not engines["reached"]
    load = goals["memory of loading, in sizes of the weights"]
    assert load["measured"] == 1.5 and not load["reached"]
    assert goals["memory of inference, against PyTorch's"]["measured"] == 700 / 800
    assert goals["import of tf_clip, as a share of 0.5 seconds"]["measured"] == pytest.approx(0.2)
    first = goals["command line: first answer without the compute, against importing TensorFlow"]
    assert first["measured"] == pytest.approx(1.5) and not first["reached"]


def test_the_page(found, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setitem(sys.modules, "chart", type(sys)("chart"))
    sys.modules["chart"].draw = lambda works, path: drawn.append(path.name)
    settings = {
        "date": "2026-01-02",
        "machine": "2 cores",
        "python": "3.11",
        "commit": "abc",
        "rounds": 3,
        "page": "bench",
    }
    result = {**settings, "versions": {"torch": "2.1"}, "models": {"tiny": found}}
    page.write_page(tmp_path / "out", result)
    text = (tmp_path / "out" / "bench.md").read_text()
    assert "2026-01-02: 2 cores, Python 3.11, tf_clip at abc, torch 2.1" in text
    assert "| transformers sdpa | 2.00 (2.00 to 2.00) |" in text
    assert "| OpenVINO | error |" in text
    assert "- OpenVINO: no / file (8)" in text
    assert "| images, batch 8: speed against PyTorch's best | at least 1.25 | 2.00 | yes |" in text
    assert (
        "| operation | image 8 | text 1 |\n|---|---|---|\n| `MatMul` | 75.0 | 99.5 |\n| `Softmax` | 25.0 | 0.0 |\n"
        in text
    )
    assert "Sub" not in text
    assert "| KerasHub | error | error | error | error | error |" in text
    assert "nan" not in text.lower().replace("tf_clip", "")
    assert drawn == ["bench.png"]
    kept = json.loads((tmp_path / "out" / "bench.json").read_text())["models"]["tiny"]["goals"]
    for ours, theirs in zip(kept, found["goals"], strict=True):
        assert ours["goal"] == theirs["goal"]
        assert ours["measured"] == (theirs["measured"] and pytest.approx(theirs["measured"], rel=1e-6))
