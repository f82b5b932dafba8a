"""What all tests share: no network but loopback, seeds, a tiny model and its processor."""

from __future__ import annotations

import gc
import gzip
import importlib.metadata
import ipaddress
import multiprocessing.process
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest

from helpers import ROOT
from helpers.needs import refuse_without
from helpers.seeds import seed
from tf_clip import CLIPConfig
from tf_clip.machine import return_freed_memory


def pytest_addoption(parser):
    parser.addoption("--write-image", action="store_true", help="write the pages' images into docs/images")


def pytest_configure():
    modules = ("ai_edge_litert", "ai_edge_quantizer", "ftfy", "httpx", "jax", "pyarrow", "sklearn", "tensorboard")
    refuse_without(
        "tests",
        "make test",
        modules=(*modules, "tensorflow_serving", "tensorflow_text", "tokenizers", "yaml"),
        distributions=("open-clip-torch",),  # of which only CLIP's vocabulary is used
    )


# What a process of tests may take. `make test` took 2846, `make test-more` 5074; imports alone take 750.
MOST_MIB = 6144
PEAKS = pytest.StashKey[list[int]]()
AFTER_LAST_COLLECTION = pytest.StashKey[int]()


# What memory may grow by in a file before it is given back.
GROWTH_MIB = 400


def _memory_in_use() -> int:
    """Returns MiB, or 0 where the system does not say."""
    path = Path("/proc/self/statm")
    return int(path.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20 if path.exists() else 0


def _give_memory_back() -> None:
    """Collects what models and graphs leave, which refer to themselves; and what backends keep of programs run."""
    gc.collect()
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
    if "tensorflow" in sys.modules:
        sys.modules["tensorflow"].random.set_seed(0)  # forgets all that it has prepared to run
    return_freed_memory()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session):
    """Leaves what is imported by now out of every later collection, which would look at it again each time."""
    gc.collect()
    gc.freeze()
    session.config.stash[AFTER_LAST_COLLECTION] = _memory_in_use()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
    """Gives memory back after each file, and where one takes much."""
    stash = item.config.stash
    is_last = nextitem is None or nextitem.path != item.path
    if is_last or _memory_in_use() > stash[AFTER_LAST_COLLECTION] + GROWTH_MIB:
        _give_memory_back()
        stash[AFTER_LAST_COLLECTION] = _memory_in_use()


def pytest_sessionfinish(session):
    gc.unfreeze()  # what a plugin imports at the end may look for who refers to what
    status = Path("/proc/self/status")
    if not status.exists():
        return
    peak = int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) // 1024
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["peak"] = peak
    else:
        session.config.stash.setdefault(PEAKS, []).append(peak)
        real_size = session.config.option.markexpr == "real_size"
        if max(session.config.stash[PEAKS]) > MOST_MIB and not real_size and session.exitstatus == 0:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    node.config.stash.setdefault(PEAKS, []).append(getattr(node, "workeroutput", {}).get("peak", 0))


def pytest_terminal_summary(terminalreporter):
    peaks = terminalreporter.config.stash.get(PEAKS, [0])
    terminalreporter.write_line(f"largest process of tests: {max(peaks)} MiB (at most {MOST_MIB})")


@pytest.fixture(autouse=True, scope="session")
def no_network():
    """Fails any test that would leave this machine."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address[0]):
            raise OSError(f"tests must not use the network, but one connects to {address}")
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded)
        patch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        yield


def _is_loopback(host):
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@pytest.fixture(autouse=True)
def tier(request, monkeypatch):
    """Fails a test of the default tier that starts an interpreter or runs `tf-clip` as a whole."""
    marks = {mark.name for mark in request.node.iter_markers()} & {"command", "process", "docs", "real_size"}
    apart = {"serving", "web", "parity"} & set(request.path.relative_to(ROOT / "tests").parts)
    if marks or apart:
        return
    start = subprocess.Popen.__init__

    def started(self, command, *arguments, **options):
        assert str(sys.executable) not in map(str, command), "mark this test `process`: it starts an interpreter"
        start(self, command, *arguments, **options)

    def runs_a_command():  # what follows the arguments, which a test of the default tier may parse
        pytest.fail("mark this test `command`: it runs tf-clip")

    def forked(self):
        pytest.fail("mark this test `process`: it starts an interpreter")

    monkeypatch.setattr(subprocess.Popen, "__init__", started)
    monkeypatch.setattr("tf_clip.cli.main.import_tensorflow", runs_a_command)
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", forked)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef):
    """Begins each fixture that outlives a test from the same seed, whichever test asks for it first."""
    if fixturedef.scope != "function":
        seed()


@pytest.fixture(autouse=True)
def seeded():
    """Begins each test from the same seed."""
    seed()


@pytest.fixture
def no_graphs():
    """Runs `tf.function` as Python does: for tests of what is computed, where making each graph would take a second."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="session")
def tiny_config():
    """No width equals another, so that a mixed-up axis cannot pass."""
    text = {
        "vocab_size": 514,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "max_position_embeddings": 16,
        "bos_token_id": 512,
        "eos_token_id": 513,
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": 20,
        "patch_size": 5,
    }
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=28)


@pytest.fixture
def tiny_model(tiny_config):
    from tf_clip import CLIPModel

    return CLIPModel(tiny_config)


@pytest.fixture(scope="session")
def tiny_processor():
    """Its vocabulary has the bytes and no merges."""
    from tf_clip import CLIPFeatureExtractorTF, CLIPProcessor, CLIPTokenizer
    from tf_clip.preprocessing.text.byte_pair_encoding import byte_symbols

    symbols = byte_symbols()
    names = [*symbols, *(symbol + "</w>" for symbol in symbols), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer({name: index for index, name in enumerate(names)}, [], model_max_length=16)
    return CLIPProcessor(CLIPFeatureExtractorTF(size=20, crop_size=20), tokenizer)


@pytest.fixture
def tiny_checkpoint(tmp_path, tiny_model, tiny_processor):
    """A folder in Hugging Face layout."""
    folder = tmp_path / "tiny"
    tiny_model.save_pretrained(folder)
    tiny_processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_inputs(tiny_config):
    """3 texts and 2 images: counts that differ, so that the two sides cannot be mixed up."""
    generator = np.random.default_rng(0)
    input_ids = generator.integers(0, 512, (3, 7))
    input_ids[:, 0] = 512
    input_ids[[0, 1, 2], [6, 4, 2]] = 513
    attention_mask = (np.arange(7) <= np.array([[6], [4], [2]])).astype("int32")
    return {
        "input_ids": input_ids.astype("int32"),
        "pixel_values": generator.normal(size=(2, 20, 20, 3)).astype("float32"),
        "attention_mask": attention_mask,
    }


@pytest.fixture(scope="session")
def real_merges():
    """CLIP's own, from the data file inside OpenCLIP's wheel; the package itself is not imported."""
    files = importlib.metadata.files("open-clip-torch") or []
    (path,) = [file.locate() for file in files if file.name == "bpe_simple_vocab_16e6.txt.gz"]
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        lines = file.read().split("\n")
    return [tuple(line.split(" ")) for line in lines[1 : 49152 - 256 - 2 + 1]]


@pytest.fixture(scope="session")
def real_vocabulary(real_merges):
    from helpers.reference_tokenizer import vocabulary_of

    vocabulary = vocabulary_of(real_merges)
    assert (len(vocabulary), vocabulary["!"], vocabulary["<|endoftext|>"]) == (49408, 0, 49407)
    return vocabulary


@pytest.fixture(scope="session")
def real_tokenizer(real_vocabulary, real_merges):
    from tf_clip import CLIPTokenizer

    return CLIPTokenizer(real_vocabulary, real_merges)
