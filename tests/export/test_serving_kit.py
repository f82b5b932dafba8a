"""The serving kit: parsed by the server's own formats, run in TensorFlow, and asked as its README says."""

from __future__ import annotations

import base64
import dataclasses
import importlib
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2

from helpers import environment
from tf_clip import CLIPModel
from tf_clip.export import saved_model
from tf_clip.export.kit.batching import choose_batching
from tf_clip.export.kit.latency import Timed, batch_sizes_up_to, measure
from tf_clip.export.kit.write import serving_kit
from tf_clip.export.savedmodel.exported_model import ExportedModel

pytestmark = pytest.mark.slow

LABELS = ["owl", "bus", 'ünï <"quoted"> €']


@pytest.fixture(scope="module")
def exported(tmp_path_factory, tiny_config, tiny_processor):
    """The folder of a tiny model, version 3, with its kit, what was told, and the model as it was loaded for that."""
    path = tmp_path_factory.mktemp("served") / "clip"
    saved_model(CLIPModel(tiny_config), tiny_processor, path, labels=LABELS, version=3)
    loaded, told = ExportedModel.open(path), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ExportedModel, "open", lambda *arguments: loaded)
        kit = serving_kit(path, name="my_clip", max_batch_size=4, seconds=1.0, cores=2, on_progress=told.append)
    return path, kit, told, loaded


@pytest.fixture(scope="module")
def loaded(exported):
    return exported[3]


def batching_parameters():
    """The server's `BatchingParameters`, of which tensorflow-serving-api has no class."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="batching.proto", syntax="proto3", package="kit_test")
    file.dependency.append("google/protobuf/wrappers.proto")
    message = file.message_type.add(name="BatchingParameters")
    numbers = {"max_batch_size": 1, "batch_timeout_micros": 2, "max_enqueued_batches": 3, "num_batch_threads": 4}
    for name, number in numbers.items():
        wrapped = {"type": kinds.TYPE_MESSAGE, "type_name": ".google.protobuf.Int64Value"}
        message.field.add(name=name, number=number, label=kinds.LABEL_OPTIONAL, **wrapped)
    message.field.add(name="allowed_batch_sizes", number=6, label=kinds.LABEL_REPEATED, type=kinds.TYPE_INT64)
    message.field.add(name="pad_variable_length_inputs", number=7, label=kinds.LABEL_OPTIONAL, type=kinds.TYPE_BOOL)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("kit_test.BatchingParameters"))


class TestBatchingRule:
    """`choose_batching` on curves made by hand."""

    def curve(self, *seconds):
        return [Timed(2**power, one) for power, one in enumerate(seconds)]

    def test_a_model_that_gains_nothing_is_not_made_to_wait(self):
        batching = choose_batching({"encode_image": self.curve(0.1, 0.2, 0.4, 0.8)}, threads=4)
        assert batching.allowed_batch_sizes == (1,)
        assert batching.batch_timeout_micros == 0
        assert (batching.num_batch_threads, batching.max_enqueued_batches) == (4, 10)

    def test_the_smallest_size_within_5_percent_of_the_best(self):
        batching = choose_batching({"encode_image": self.curve(0.010, 0.012, 0.016, 0.0312, 0.062)}, threads=2)
        # A row costs 10, 6, 4, 3.9 and 3.9 ms.
        assert batching.max_batch_size == 4
        assert batching.allowed_batch_sizes == (1, 2, 4)
        assert batching.batch_timeout_micros == 6000
        assert batching.max_enqueued_batches == 63

    def test_the_signature_that_saves_least_bounds_the_wait_and_the_slowest_the_queue(self):
        curves = {"encode_image": self.curve(0.1, 0.12), "encode_text": self.curve(0.003, 0.004, 0.006)}
        batching = choose_batching(curves, threads=1)
        assert batching.max_batch_size == 2
        assert batching.batch_timeout_micros == 1000

    def test_no_wait_is_longer_than_10_ms(self):
        assert choose_batching({"a": self.curve(1.0, 1.0)}, threads=1).batch_timeout_micros == 10_000

    def test_a_size_that_is_set_is_taken(self):
        batching = choose_batching({"a": self.curve(0.1, 0.2)}, threads=1, max_batch_size=48)
        assert batching.allowed_batch_sizes == (1, 2, 4, 8, 16, 32, 48)
        assert batching.max_enqueued_batches == 1


class TestMeasure:
    """`measure` with a clock of its own."""

    def test_it_stops_in_time_and_takes_the_fastest_run(self):
        now = [0.0]
        runs = []

        def run(rows):
            runs.append(rows)
            now[0] += rows * (1.0 if len(runs) % 2 else 2.0)

        timed = measure(run, [1, 2, 4, 8, 16], 40.0, clock=lambda: now[0])
        assert [one.batch_size for one in timed] == [1, 2, 4]
        assert [one.seconds_per_row for one in timed] == [1.0] * 3
        assert now[0] < 60

    def test_one_size_is_always_measured(self):
        assert [one.batch_size for one in measure(lambda rows: time.sleep(0.01), [1, 2], 1e-6)] == [1]

    def test_sizes(self):
        assert batch_sizes_up_to(1) == [1]
        assert batch_sizes_up_to(8) == [1, 2, 4, 8]
        assert batch_sizes_up_to(12) == [1, 2, 4, 8, 12]


def test_progress_is_told(exported):
    told = exported[2]
    assert told[0] == "loading the model"
    assert "measuring encode_image, batches of 1" in told and "measuring encode_text, batches of 1" in told


def test_the_curves_begin_with_one_row(exported):
    for curve in exported[1].curves.values():
        assert curve[0].batch_size == 1 and all(one.seconds > 0 for one in curve)


def test_batching_files_hold_what_was_chosen(exported):
    path, kit, *_ = exported
    parameters = batching_parameters()
    server = text_format.Parse((kit.folder / "batching.config").read_text(), parameters())
    model = text_format.Parse((path / "3" / "batching_params.pbtxt").read_text(), parameters())
    for one in (server, model):
        sizes = list(one.allowed_batch_sizes)
        assert sizes == sorted(set(sizes)) == list(kit.batching.allowed_batch_sizes)
        assert sizes[-1] == one.max_batch_size.value == kit.batching.max_batch_size
        assert one.batch_timeout_micros.value == kit.batching.batch_timeout_micros
        assert one.max_enqueued_batches.value == kit.batching.max_enqueued_batches >= 1
        assert not one.pad_variable_length_inputs
    assert server.num_batch_threads.value == 2
    assert not model.HasField("num_batch_threads")  # a server's threads are for all its models


def test_models_config_as_it_is_and_with_its_comments_taken_in(exported):
    from tensorflow_serving.config import model_server_config_pb2

    text = (exported[1].folder / "models.config").read_text()
    (config,) = text_format.Parse(text, model_server_config_pb2.ModelServerConfig()).model_config_list.config
    assert (config.name, config.base_path, config.model_platform) == ("my_clip", "/models/my_clip", "tensorflow")
    assert config.model_version_policy.latest.num_versions == 1
    canary = re.sub(r"^    # ((?:model_version_policy|version_labels).*)$", r"\1", text, flags=re.MULTILINE)
    canary = canary.replace("model_version_policy { latest { num_versions: 1 } }", "")
    (config,) = text_format.Parse(canary, model_server_config_pb2.ModelServerConfig()).model_config_list.config
    assert list(config.model_version_policy.specific.versions) == [3, 4]
    assert dict(config.version_labels) == {"stable": 3, "canary": 4}


def test_warm_up_requests_are_read_back_and_run(exported, loaded):
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    path, kit, *_ = exported
    file = path / "3" / "assets.extra" / "tf_serving_warmup_requests"
    seen = set()
    for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        request = log.predict_log.request
        assert log.WhichOneof("log_type") == "predict_log" and request.model_spec.name == "my_clip"
        signature = request.model_spec.signature_name
        inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        rows = {len(value) for value in inputs.values()}
        assert len(rows) == 1
        outputs = loaded.run(signature, inputs)
        assert {len(value) for value in outputs.values()} == rows
        assert set(outputs.get("status", [b"ok"])) == {b"ok"}
        seen.add((signature, *rows))
    names = ["classify", "encode_image", "encode_image_pixels", "encode_text", "encode_tokens", "serving_default"]
    sizes = kit.batching.allowed_batch_sizes
    assert seen == {(name, size) for name in [*names, "similarity_pairs"] for size in sizes}
    assert kit.warm_up_requests == len(seen) <= 1000


def test_all_files_are_there_and_no_placeholder_is_left(exported):
    path, kit, *_ = exported
    assert {file.name for file in kit.folder.iterdir()} == {
        "README.md",
        "batching.config",
        "compose.yaml",
        "models.config",
    }
    for file in kit.files:
        assert file.is_file() and path in file.parents
        if file.suffix:
            assert "${" not in file.read_text("utf-8").replace("${TF_SERVING_IMAGE:-", "")


def test_compose(exported):
    ((name, service),) = yaml.safe_load((exported[1].folder / "compose.yaml").read_text())["services"].items()
    assert name == "my-clip"
    assert service["image"] == "${TF_SERVING_IMAGE:-tensorflow/serving:latest}"
    flags = dict(flag.removeprefix("--").split("=") for flag in service["command"])
    assert flags["enable_batching"] == flags["enable_model_warmup"] == "true"
    assert not [flag for flag in flags if "xla" in flag]
    (volume,) = service["volumes"]
    assert volume["read_only"] and service["read_only"]
    for flag in ("model_config_file", "batching_parameters_file"):
        inside = Path(flags[flag]).relative_to(volume["target"])
        assert (exported[1].folder / volume["source"] / inside).is_file()
    assert [port.split(":")[-2:] for port in service["ports"]] == [["8500", "8500"], ["8501", "8501"]]


class Local(BaseHTTPRequestHandler):
    """The exported model behind the URLs of the README, with the columnar form alone."""

    model = None

    def log_message(self, *arguments):
        pass

    def reply(self, code, answer):
        body = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        known = self.path in ("/v1/models/my_clip", "/v1/models/my_clip/metadata")
        self.reply(200 if known else 404, {"model_version_status": [{"version": "3", "state": "AVAILABLE"}]})

    def do_POST(self):
        if self.path != "/v1/models/my_clip:predict":
            return self.reply(404, {"error": f"no {self.path}"})
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        inputs = {
            name: [base64.b64decode(one["b64"]) if isinstance(one, dict) else one for one in values]
            for name, values in request["inputs"].items()
        }
        outputs = self.model.run(request["signature_name"], inputs)
        texts = {name: np.char.decode(value.astype(bytes)) for name, value in outputs.items() if value.dtype == object}
        self.reply(200, {"outputs": {name: value.tolist() for name, value in {**outputs, **texts}.items()}})


@pytest.fixture
def local(loaded):
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Local,), {"model": loaded}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture
def workplace(tmp_path):
    from tf_clip.export.kit.example_inputs import image_file

    (tmp_path / "image.jpg").write_bytes(image_file())
    return tmp_path


def blocks(readme, language):
    return re.findall(rf"^```{language}\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)


def test_the_readmes_curl_calls_run(exported, local, workplace):
    readme = (exported[1].folder / "README.md").read_text("utf-8")
    calls = blocks(readme, "sh")
    assert len(calls) == 9
    for call in calls:
        command = call.replace("localhost:8501", f"127.0.0.1:{local}")
        done = subprocess.run(["bash", "-ec", command], cwd=workplace, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, call + done.stdout + done.stderr
        answers = [json.loads(part) for part in done.stdout.replace("}{", "}\n{").splitlines()]
        for answer in answers:
            statuses = answer.get("outputs", {}).get("status", ["ok"])
            assert set(statuses) == {"ok"}, call


@pytest.mark.process
def test_the_readmes_python_runs(exported, local, loaded, workplace):
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    class Predictions(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
            answer = predict_pb2.PredictResponse()
            for name, value in loaded.run(request.model_spec.signature_name, inputs).items():
                answer.outputs[name].CopyFrom(tf.make_tensor_proto(value))
            return answer

    over_grpc, over_rest = blocks((exported[1].folder / "README.md").read_text("utf-8"), "python")
    pool = ThreadPoolExecutor(2)
    server = grpc.server(pool)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Predictions(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        for code in (
            over_grpc.replace("localhost:8500", f"127.0.0.1:{port}"),
            over_rest.replace("localhost:8501", f"127.0.0.1:{local}"),
        ):
            done = subprocess.run(
                [sys.executable, "-c", code],
                cwd=workplace,
                capture_output=True,
                text=True,
                timeout=120,
                env=environment(),
            )
            assert done.returncode == 0, done.stderr
    finally:
        server.stop(0).wait(5)
        pool.shutdown()
    assert "(1, 28)" in done.stdout and "['ok']" in done.stdout


def test_the_readme_lists_signatures_and_ratios(exported):
    path, kit, *_ = exported
    readme = (kit.folder / "README.md").read_text("utf-8")
    described = json.loads((path / "3" / "assets.extra" / "tf_clip.json").read_text("utf-8"))
    for name in described["signatures"]:
        assert f"| `{name}` | " in readme and f"### `{name}`" in readme
    assert "| 1 | 1.00 | 1.00 |" in readme
    assert f"`max_batch_size` {kit.batching.max_batch_size}:" in readme


def test_the_healthcheck_of_compose_runs(exported, local):
    check = yaml.safe_load((exported[1].folder / "compose.yaml").read_text())["services"]["my-clip"]["healthcheck"]
    kind, *command = check["test"]
    assert kind == "CMD"

    def healthy(port, model="my_clip"):
        changed = [part.replace("/8501", f"/{port}").replace("my_clip", model) for part in command]
        return subprocess.run(changed, capture_output=True, timeout=10).returncode == 0

    assert healthy(local)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert not healthy(unused.getsockname()[1])


def test_a_kit_without_labels_that_chooses_its_batches(tmp_path, loaded, monkeypatch):
    signatures = {name: one for name, one in loaded.description["signatures"].items() if name != "classify"}
    shutil.copytree(loaded.folder, tmp_path / "2", ignore=shutil.ignore_patterns("batching_params.pbtxt"))
    shutil.copytree(tmp_path / "2", tmp_path / "12")
    description = {**loaded.description, "signatures": signatures}
    unlabeled = dataclasses.replace(loaded, folder=tmp_path / "2", version=2, description=description)
    with monkeypatch.context() as patch:
        patch.setattr(ExportedModel, "open", lambda path, version: unlabeled)
        kit = serving_kit(tmp_path, version=2, seconds=0.2)
    measured = {one.batch_size for curve in kit.curves.values() for one in curve}
    assert kit.batching.max_batch_size in measured and max(measured) <= 64
    assert kit.batching.num_batch_threads >= 1
    assert (tmp_path / "2" / "batching_params.pbtxt").is_file()
    assert not (tmp_path / "12" / "batching_params.pbtxt").exists()
    readme = (kit.folder / "README.md").read_text("utf-8")
    assert "classify" not in readme and "`clip`, version 2" in readme
    assert ExportedModel.open(tmp_path).version == 12  # the highest, not the last by name


def test_what_is_no_exported_model(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must hold an exported version. Received: .*its versions are \[\]"):
        serving_kit(tmp_path)
    with pytest.raises(FileNotFoundError):
        serving_kit(tmp_path / "missing")
    (tmp_path / "7").mkdir()
    with pytest.raises(FileNotFoundError, match=r"version=7; its versions are \[7\]"):
        serving_kit(tmp_path)
    (tmp_path / "7" / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ValueError, match="a model that tf_clip exported"):
        serving_kit(tmp_path)
    (tmp_path / "7" / "assets.extra").mkdir()
    (tmp_path / "7" / "assets.extra" / "tf_clip.json").write_text('{"format": 2, "signatures": {}}')
    with pytest.raises(ValueError, match="is of another format"):
        serving_kit(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "a b"}, "`name` must be letters"),
        ({"name": "../x"}, "`name` must be letters"),
        ({"max_batch_size": 0}, "`max_batch_size` must be a whole number from 1 to 4096"),
        ({"cores": 1.5}, "`cores` must be a whole number"),
        ({"seconds": 0}, "`seconds` must be above 0"),
    ],
)
def test_arguments_out_of_range(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        serving_kit(tmp_path, **options)


def test_the_extra_is_named_when_missing(monkeypatch):
    monkeypatch.delitem(sys.modules, "tf_clip.export.kit.warm_up")
    for name in ("tensorflow_serving", "tensorflow_serving.apis"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"pip install 'tf_clip\[serving\]'"):
        importlib.import_module("tf_clip.export.kit.warm_up")
