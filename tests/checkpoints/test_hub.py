"""Finding checkpoints: the shipped one, folders, and a Hub served on this machine."""

import base64
import json
import os
import subprocess
import sys
import textwrap
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from tf_clip import CLIPModel
from tf_clip.checkpoints import files, hub
from tf_clip.models.pretrained import write_openclip

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub(BaseHTTPRequestHandler):
    """Answers the few calls a download makes: the file list of `someone/tiny`, then each file."""

    folder: Path
    asked: list[str]

    def do_HEAD(self):
        self._answer(with_body=False)

    def do_GET(self):
        self._answer(with_body=True)

    def do_POST(self):
        """Takes an upload: a new repository, which files go where, and the commit with the files in it."""
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.asked.append(self.path)
        if self.headers.get("Authorization") != "Bearer hf_right":
            return self._send(401, b"{}", True, {"X-Error-Message": "Invalid credentials"})
        if self.path == "/api/repos/create":
            answer = {"url": f"http://{self.headers['Host']}/someone/new", "id": "someone/new"}
        elif self.path.startswith("/api/models/someone/new/preupload/"):
            files = [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]
            answer = {"files": files}
        elif self.path.startswith("/api/models/someone/new/commit/"):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    (self.folder / line["value"]["path"]).write_bytes(base64.b64decode(line["value"]["content"]))
            url = f"http://{self.headers['Host']}/someone/new/commit/{COMMIT}"
            answer = {"success": True, "commitUrl": url, "commitOid": COMMIT, "hookOutput": ""}
        else:
            answer = {}
        return self._send(200, json.dumps(answer).encode(), True, {"Content-Type": "application/json"})

    def _answer(self, with_body):
        self.asked.append(self.path)
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/someone/tiny"):
            files = [*(file.name for file in self.folder.iterdir()), "pytorch_model.bin"]
            names = [{"rfilename": name} for name in files]
            tree = [{"type": "file", "path": name, "size": 1, "oid": "0" * 40} for name in files]
            is_tree = "/tree/" in path
            body = json.dumps(tree if is_tree else {"id": "someone/tiny", "sha": COMMIT, "siblings": names}).encode()
            return self._send(200, body, with_body, {"Content-Type": "application/json"})
        name = path.rpartition("/")[2]
        if path.startswith("/someone/tiny/resolve/") and (self.folder / name).is_file():
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{name}"'}
            return self._send(200, (self.folder / name).read_bytes(), with_body, headers)
        return self._send(404, b"", with_body, {"X-Error-Code": "RepoNotFound"})

    def _send(self, status, body, with_body, headers):
        self.send_response(status)
        for header, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(header, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def fake_hub(tiny_checkpoint):
    handler = type("Handler", (FakeHub,), {"folder": tiny_checkpoint, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler.asked
    server.shutdown()
    server.server_close()


def run_with_hub(endpoint, cache, code):
    """Runs code in a process of its own, since the endpoint is read when huggingface_hub is imported."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(cache),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "HF_HUB_DISABLE_XET": "1",
    }
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.process
def test_a_hub_id_is_downloaded_once_and_loads(fake_hub, tmp_path):
    endpoint, asked = fake_hub
    code = """
        from tf_clip import CLIPModel, CLIPProcessor
        model = CLIPModel.from_pretrained("someone/tiny")
        processor = CLIPProcessor.from_pretrained("someone/tiny")
        print("width", model.get_text_features(**processor(text=["a"])).shape[1])
    """
    result = run_with_hub(endpoint, tmp_path / "cache", code)
    assert result.stdout.strip() == "width 28", result.stderr
    assert not any("pytorch_model.bin" in path for path in asked), "pickles must not even be downloaded"


@pytest.mark.process
@pytest.mark.parametrize("endpoint", ["fake", "http://127.0.0.1:9"])
def test_an_id_that_cannot_be_had_is_an_error(fake_hub, tmp_path, endpoint):
    code = """
        from tf_clip.checkpoints import hub
        try:
            hub.resolve("someone/else")
        except FileNotFoundError as error:
            print(error)
    """
    result = run_with_hub(fake_hub[0] if endpoint == "fake" else endpoint, tmp_path / "cache", code)
    assert "`name_or_path` must be a shipped name" in result.stdout, result.stderr
    assert "Received: name_or_path='someone/else'" in result.stdout


def test_a_folder_is_taken_as_it_is(tmp_path):
    assert hub.resolve(tmp_path) == tmp_path


def test_the_shipped_checkpoint_is_found():
    assert (hub.resolve("pictogram-clip") / "model.safetensors").is_file()


@pytest.mark.parametrize("name", ["/no/such/folder", "a b c", "", "../no/such"])
def test_nonsense_is_an_error(name):
    with pytest.raises(FileNotFoundError, match="`name_or_path` must be"):
        hub.resolve(name)


CLIP, TIMM = {"model_type": "clip"}, {"architecture": "vit_huge_patch14_clip_224"}
BOTH = ("config.json", "open_clip_config.json")


@pytest.mark.parametrize(
    ("present", "config", "wanted"),
    [
        (("config.json", "model.safetensors", "pytorch_model.bin", "tf_model.h5"), CLIP, "model.safetensors"),
        (("config.json", "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack"), CLIP, "pytorch_model.bin"),
        (("config.json", "flax_model.msgpack"), CLIP, "flax_model.msgpack"),
        (("open_clip_config.json", "open_clip_model.safetensors", "README.md"), {}, "open_clip_model.safetensors"),
        ((*BOTH, "pytorch_model.bin", "open_clip_model.safetensors"), CLIP, "pytorch_model.bin"),
        # timm's own files beside OpenCLIP's: an image tower alone
        ((*BOTH, "model.safetensors", "open_clip_model.safetensors"), TIMM, "open_clip_model.safetensors"),
        (("config.json", "model.weights.h5", "assets/tokenizer/vocabulary.json"), {}, "model.weights.h5"),
    ],
)
def test_one_format_of_weights_is_downloaded(present, config, wanted):
    weights = [name for name in files.needed(present, config) if not name.endswith(".json")]
    assert weights == [wanted]


def test_all_parts_of_cut_up_weights_are_downloaded():
    parts = [f"model-0000{k}-of-00002.safetensors" for k in (1, 2)]
    present = ["config.json", "model.safetensors.index.json", *parts, "modeling_clip.py", "model.gguf"]
    found = files.needed(present, CLIP)
    assert found == ["config.json", "model.safetensors.index.json", *parts]


PUSH = """
    import sys
    from tf_clip import CLIPModel
    model = CLIPModel.from_pretrained(sys.argv[1])
    print(model.push_to_hub("someone/new", message="first"))
"""


def push(endpoint, cache, source, token):
    environment = {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", textwrap.dedent(PUSH), str(source)]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120)


@pytest.mark.process
def test_push_to_hub_uploads_what_can_be_loaded(fake_hub, tiny_checkpoint, tiny_config, tiny_inputs, tmp_path):
    endpoint, asked = fake_hub
    source = tmp_path / "source"
    model = CLIPModel(tiny_config)
    model.save_pretrained(source)
    for name in ("config.json", "model.safetensors"):
        (tiny_checkpoint / name).unlink()  # the fake's folder, which the upload fills
    result = push(endpoint, tmp_path / "cache", source, "hf_right")
    assert result.stdout.strip() == f"{endpoint}/someone/new/commit/{COMMIT}", result.stderr
    assert "/api/repos/create" in asked
    for ours, theirs in zip(CLIPModel.from_pretrained(tiny_checkpoint).get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.process
def test_push_without_a_right_says_how_to_get_it(fake_hub, tiny_checkpoint, tmp_path):
    result = push(fake_hub[0], tmp_path / "cache", tiny_checkpoint, "hf_wrong")
    assert "PermissionError: `name` must be a repository you may write to" in result.stderr
    assert "hf auth login" in result.stderr


@pytest.mark.process
def test_openclips_files_win_over_timms_beside_them(fake_hub, tiny_checkpoint, tiny_model, tmp_path):
    """As in timm's repositories of CLIP models, whose model.safetensors is the image tower alone."""
    endpoint, asked = fake_hub
    write_openclip(tiny_model, tiny_checkpoint)
    (tiny_checkpoint / "config.json").write_text('{"architecture": "vit_base_patch32_clip_224"}')
    (tiny_checkpoint / "model.safetensors").write_bytes(b"not to be read")
    code = """
        from tf_clip import CLIPModel
        print(CLIPModel.from_pretrained("someone/tiny").config.projection_dim)
    """
    result = run_with_hub(endpoint, tmp_path / "cache", code)
    assert result.stdout.strip() == "28", result.stderr
    assert not any(path.endswith("/model.safetensors") for path in asked)
