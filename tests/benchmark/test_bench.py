"""`tf-clip bench`: what it measures, shows and records."""

import json

import numpy as np
import pytest
import tensorflow as tf

from tf_clip import CLIPModel, CLIPProcessor, compile_for_inference
from tf_clip.benchmark.measure import KINDS, benchmark, work
from tf_clip.benchmark.profile import profile, top_operations
from tf_clip.cli.main import main


@pytest.fixture
def loaded(tiny_checkpoint):
    return CLIPModel.from_pretrained(tiny_checkpoint), CLIPProcessor.from_pretrained(tiny_checkpoint)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_work_returns_a_result_for_the_batch(loaded, kind):
    model, processor = loaded
    result = work(kind, 3, processor, compile_for_inference(model, processor, engine="tensorflow"))()
    assert result.shape == ((3, 3) if kind in ("joint", "end_to_end") else (3, model.config.projection_dim))
    assert np.isfinite(result).all()


@pytest.mark.slow
def test_measurements(loaded):
    done = []
    options = {"engines": ["tensorflow"], "batches": [1, 2], "kinds": ["image", "text"], "rounds": 3, "seconds": 0.01}
    found = benchmark(*loaded, **options, on_progress=done.append)
    assert [(one.kind, one.batch) for one in found] == [("image", 1), ("image", 2), ("text", 1), ("text", 2)]
    assert done == [1] * 4
    for one in found:
        assert 0.0 < one.fastest <= one.seconds <= one.slowest
        assert one.per_second == pytest.approx(one.batch / one.seconds)
    with pytest.raises(ValueError, match="`engine` must be one of"):
        benchmark(*loaded, engines=["steam"], batches=[1])
    with pytest.raises(ValueError, match="`kinds` must be some of"):
        benchmark(*loaded, engines=["tensorflow"], batches=[1], kinds=["smell"])


def test_a_profile_lists_operations(tmp_path):
    @tf.function
    def call(x):
        return tf.nn.softmax(tf.linalg.matmul(x, x))

    x = tf.ones((200, 200))
    operations = profile(lambda: call(x), tmp_path, times=3)
    kinds = {one.kind: one for one in operations}
    (product,) = [one for kind, one in kinds.items() if "MatMul" in kind]
    assert product.calls == 3
    assert sum(one.share for one in operations) == pytest.approx(1.0)
    assert operations == sorted(operations, key=lambda one: -one.seconds)


def test_time_inside_another_operation_is_counted_once(tmp_path):
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    plane = space.planes.add()
    for number, name in enumerate(("call:StatefulPartitionedCall", "a:MatMul", "b:MatMul", "ExecutorState::Process")):
        plane.event_metadata[number].name = name
    line = plane.lines.add()
    for number, start, duration in ((3, 0, 100), (0, 0, 90), (1, 10, 20), (2, 40, 30), (1, 95, 5)):
        line.events.add(metadata_id=number, offset_ps=start, duration_ps=duration)
    (tmp_path / "x.xplane.pb").write_bytes(space.SerializeToString())
    found = {one.kind: (one.calls, round(one.seconds * 1e12)) for one in top_operations(tmp_path / "x.xplane.pb")}
    assert found == {"MatMul": (3, 55), "StatefulPartitionedCall": (1, 40)}


@pytest.mark.command
def test_the_command(tiny_checkpoint, tmp_path, capsys):
    words = ["bench", "--model", str(tiny_checkpoint), "--batch", "2", "1", "2", "--rounds", "1", "--work", "image"]
    assert main([*words, "--json", "--engine", "tensorflow", "--profile", str(tmp_path / "trace")]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [one["batch"] for one in result["measurements"]] == [1, 2]
    assert any("MatMul" in one["kind"] for one in result["profile"])
    assert list((tmp_path / "trace").rglob("*.xplane.pb"))
    assert main([*words, "--engine", "tensorflow", "--engine", "xla"]) == 0
    shown = capsys.readouterr().out
    assert "images to embeddings" in shown and "1.00 x" in shown and "xla" in shown
    assert main([*words, "--engine", "steam"]) == 2
    assert (
        "`--engine` must be one of ['auto', 'tensorflow', 'xla', 'litert']. Received: steam." in capsys.readouterr().err
    )
