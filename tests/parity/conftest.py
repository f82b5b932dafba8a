"""The reference processes, ours on each backend, the checkpoints, and CLIP's real vocabulary."""

from __future__ import annotations

import gzip
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.needs import refuse_without

from .measuring import MEASURED, write_page

ROOT = Path(__file__).resolve().parents[2]
BACKENDS = ("tensorflow", "jax", "torch")

# Every width differs, heads do not divide evenly into 64s, MLPs are not 4 times as wide, 7 does not divide 30.
ODD = {
    "text_config": {
        "vocab_size": 99,
        "hidden_size": 40,
        "intermediate_size": 72,
        "projection_dim": 12,
        "num_hidden_layers": 3,
        "num_attention_heads": 5,
        "max_position_embeddings": 20,
        "hidden_act": "gelu",
        "bos_token_id": 97,
        "eos_token_id": 98,
        "pad_token_id": 0,
    },
    "vision_config": {
        "hidden_size": 48,
        "intermediate_size": 100,
        "projection_dim": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "image_size": 30,
        "patch_size": 7,
    },
    "projection_dim": 24,
}
LEGACY_PACKAGES = Path(sys.prefix) / "transformers-4"
ADAPTER_PACKAGES = Path(sys.prefix) / "adapters"
# The head widths and MLPs of H/14 (80), g/14 (88, 4.36x) and bigG/14 (104, 4.92x), the exact and the tanh activations.
WIDE = {
    "text_config": {**ODD["text_config"], "hidden_size": 160, "intermediate_size": 641, "num_attention_heads": 2},
    "vision_config": {
        **ODD["vision_config"],
        "hidden_size": 176,
        "intermediate_size": 768,
        "num_attention_heads": 2,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
    },
    "projection_dim": 24,
}
WIDE["text_config"]["hidden_act"] = "gelu_pytorch_tanh"
LEGACY = {**ODD, "text_config": {**ODD["text_config"], "eos_token_id": 2}}
CONFIGS = {"vit_b_32": {"text_config": {}, "vision_config": {}}, "odd": ODD, "wide_heads": WIDE, "legacy_eos": LEGACY}

NAMES = [pytest.param("vit_b_32", marks=pytest.mark.real_size), "odd", "wide_heads", "legacy_eos"]


def pytest_configure() -> None:
    refuse_without(
        "tests/parity",
        "make parity",
        modules=("torch", "transformers", "keras_hub", "unicodedata2"),
        distributions=("openai-clip", "scikit-image"),
        folders={"transformers 4": LEGACY_PACKAGES, "adapters, peft": ADAPTER_PACKAGES},
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not MEASURED:  # what processes of tests have measured stays there
        return
    terminalreporter.section("largest differences from the reference implementations")
    for label, (difference, bound) in MEASURED.items():
        terminalreporter.write_line(f"{label:<64} {difference:<7.2g} (at most {bound:g})")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    # Part of the tests would leave part of the table.
    if exitstatus == 0 and session.config.getoption("write_page"):
        write_page(ROOT / "docs")


class Process:
    """A script that runs a command for each JSON list it reads, kept for a whole session.

    Args:
        script: its name in this folder.
        log: the file that takes its messages.
        environment: variables set for it.
    """

    def __init__(self, script: str, log: Path, **environment: str) -> None:
        self.backend = environment.get("KERAS_BACKEND", "")
        self._log = log
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name(script))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, "HF_HUB_OFFLINE": "1", "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
            )

    def __call__(self, *words: str | Path) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(word) for word in words]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer == "done\n", f"{words}:\n{self._log.read_text()[-4000:]}"

    def close(self) -> None:
        self._process.communicate()  # closes its input, which ends it
        assert self._process.returncode == 0, self._log.read_text()[-4000:]


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """transformers 5, OpenCLIP and OpenAI's code, on PyTorch."""
    process = Process("reference.py", tmp_path_factory.mktemp("reference") / "log.txt")
    yield process
    process.close()


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Process]]:
    """tf_clip, on all backends at once: a checkpoint is made once and loaded by each."""
    folder = tmp_path_factory.mktemp("libraries")
    processes = {
        name: Process("library.py", folder / f"{name}.txt", KERAS_BACKEND=name, PYTHONPATH=str(ROOT))
        for name in BACKENDS
    }
    yield processes
    for process in processes.values():
        process.close()


@pytest.fixture(params=BACKENDS)
def library(request: pytest.FixtureRequest, libraries: dict[str, Process]) -> Process:
    """tf_clip, on one backend after the other."""
    return libraries[request.param]


@pytest.fixture(autouse=True, scope="session")
def without_torch() -> Iterator[None]:
    """Fails when anything in this process has imported the reference; library.py watches its own."""
    yield
    assert not {"torch", "transformers"} & set(sys.modules)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that is gone after the test: pytest would keep gigabytes of checkpoints."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-page", action="store_true", help="write docs/parity.md and .csv from what was measured")


@pytest.fixture(scope="session", params=NAMES)
def checkpoint(
    request: pytest.FixtureRequest, reference: Process, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A folder that transformers has saved a random CLIPModel in."""
    # The name is what the measured differences are listed under.
    folder = tmp_path_factory.mktemp("checkpoint") / request.param
    folder.mkdir()
    (folder / "wanted.json").write_text(json.dumps(CONFIGS[request.param]))
    reference("make", "CLIPModel", folder, folder / "wanted.json")
    assert (folder / "model.safetensors").is_file()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CLIP's own vocabulary, `{"vocab": {symbol: id}, "merges": [[first, second]]}`, from a wheel that holds it."""
    files = importlib.metadata.files("open-clip-torch") or []
    (archive,) = [file.locate() for file in files if file.name == "bpe_simple_vocab_16e6.txt.gz"]
    with gzip.open(str(archive), "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")
    merges = [line.split() for line in lines[1:48895]]
    # Printable bytes stand for themselves, the others for the letters from 256 on.
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    symbols = [chr(code) for code in [*printable, *range(256, 512 - len(printable))]]
    names = [*symbols, *(symbol + "</w>" for symbol in symbols), *map("".join, merges)]
    vocab = {name: index for index, name in enumerate([*names, "<|startoftext|>", "<|endoftext|>"])}
    assert len(vocab) == 49408
    path = tmp_path_factory.mktemp("vocabulary") / "vocabulary.json"
    path.write_text(json.dumps({"vocab": vocab, "merges": merges}))
    return path
