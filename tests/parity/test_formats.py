"""Checkpoints of every format, each made by its own library, give that library's numbers in every class here."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .conftest import ODD, Process
from .inputs import make_inputs
from .measuring import compare

# OpenAI's heads are 64 wide, and KerasHub's and OpenAI's images are whole patches; widths differ all the same.
EVEN_TEXT = {**ODD["text_config"], "hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 2}
EVEN_TEXT = {**EVEN_TEXT, "hidden_act": "quick_gelu"}
EVEN_VISION = {**ODD["vision_config"], "hidden_size": 192, "intermediate_size": 768, "image_size": 28}
EVEN_VISION = {**EVEN_VISION, "hidden_act": "quick_gelu"}
EVEN = {"text_config": EVEN_TEXT, "vision_config": EVEN_VISION, "projection_dim": 24}
# The exact activation, heads of 80 and 88 and an MLP of 4.36 widths, as H/14 and g/14 have.
WIDE_OPENCLIP = {
    "embed_dim": 24,
    "vision_cfg": {"layers": 2, "width": 176, "head_width": 88, "mlp_ratio": 4.3637, "patch_size": 7, "image_size": 28},
    "text_cfg": {"context_length": 20, "vocab_size": 99, "width": 160, "heads": 2, "layers": 3},
}
REAL_TEXT = {"vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12}
REAL_TEXT |= {"num_attention_heads": 8, "max_position_embeddings": 77, "hidden_act": "quick_gelu"}
REAL_TEXT |= {"bos_token_id": 49406, "eos_token_id": 49407}
REAL_VISION = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
REAL_VISION |= {"image_size": 224, "patch_size": 32, "hidden_act": "quick_gelu"}
REAL = {"text_config": REAL_TEXT, "vision_config": REAL_VISION, "projection_dim": 512}
REAL_OPENCLIP = {
    "embed_dim": 512,
    "quick_gelu": True,
    "vision_cfg": {"layers": 12, "width": 768, "patch_size": 32, "image_size": 224},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12},
}
RESNET = {"layers": [1, 2, 1, 1], "width": 16, "image_size": 64}
RN50 = {"layers": [3, 4, 6, 3], "width": 64, "image_size": 224}
TOWERS = ("CLIPTextModel", "CLIPTextEncoder", "CLIPVisionModel", "CLIPImageEncoder", "CLIPForImageClassification")


@dataclasses.dataclass(frozen=True)
class Format:
    """One format: who makes it, of which size, and with which further words of the command."""

    title: str
    command: str
    size: str  # "tiny", "ViT-B/32", ...
    config: dict[str, Any]
    words: tuple[str, ...] = ()
    file: str = ""  # what is loaded, where not the folder


def openai_arguments(config: dict[str, Any], resnet: dict[str, Any] | None) -> dict[str, Any]:
    """Returns the arguments of OpenAI's class."""
    text, vision = config["text_config"], config["vision_config"]
    return {
        "embed_dim": config["projection_dim"],
        "image_resolution": resnet["image_size"] if resnet else vision["image_size"],
        "vision_layers": resnet["layers"] if resnet else vision["num_hidden_layers"],
        "vision_width": resnet["width"] if resnet else vision["hidden_size"],
        "vision_patch_size": None if resnet else vision["patch_size"],
        "context_length": text["max_position_embeddings"],
        "vocab_size": text["vocab_size"],
        "transformer_width": text["hidden_size"],
        "transformer_heads": text["num_attention_heads"],
        "transformer_layers": text["num_hidden_layers"],
    }


def formats() -> Iterator[Format]:
    for size, config in (("tiny", ODD), ("ViT-B/32", REAL)):
        yield Format("transformers 5, .safetensors in parts", "shards", size, config)
        yield Format("transformers names, pytorch_model.bin", "bin", size, config, ("1",))
        yield Format("transformers names, pytorch_model.bin in parts", "bin", size, config, ("3",))
        for form, title in (("h5", "tf_model.h5"), ("shards", "tf_model.h5 in parts"), ("safetensors", ".safetensors")):
            yield Format(f"transformers 4 TFCLIPModel, {title}", "make_tensorflow", size, config, (form,))
        for form, title in (("whole", "flax_model.msgpack"), ("shards", "flax_model.msgpack in parts")):
            yield Format(f"transformers 4 FlaxCLIPModel, {title}", "make_flax", size, config, (form,))
        even = EVEN if size == "tiny" else config
        yield Format("KerasHub preset", "make_keras_hub", size, even)
        yield Format(
            "OpenAI .pt, float16 TorchScript", "make_openai", size, openai_arguments(even, None), (), "model.pt"
        )
        model = WIDE_OPENCLIP if size == "tiny" else REAL_OPENCLIP
        custom = {**model, "custom_text": True, "init_logit_bias": -3.0}
        for file, described in (
            ("open_clip_model.safetensors", model),
            ("open_clip_pytorch_model.bin", model),
            ("open_clip_pytorch_model.pt", custom),
        ):
            form = ", CustomTextCLIP with logit_bias" if described is custom else ""
            yield Format(f"OpenCLIP {file}{form}", "make_openclip", size, {"model_cfg": described}, (file,))
    for size, even, resnet in (("tiny ResNet", EVEN, RESNET), ("RN50", REAL, RN50)):
        arguments = openai_arguments({**even, "projection_dim": 1024 if size == "RN50" else 24}, resnet)
        yield Format("OpenAI .pt, float16 TorchScript", "make_openai", size, arguments, (), "model.pt")
        model = {**(WIDE_OPENCLIP if size == "tiny ResNet" else REAL_OPENCLIP), "vision_cfg": resnet}
        file = "open_clip_model.safetensors"
        yield Format(f"OpenCLIP {file}", "make_openclip", size, {"model_cfg": model}, (file,))


def sizes_of(form: Format) -> dict[str, Any]:
    """Returns as much of a config.json as making inputs needs."""
    config = form.config
    if form.command == "make_openai":
        text = {"vocab_size": config["vocab_size"], "max_position_embeddings": config["context_length"]}
        return {"text_config": text, "vision_config": {"image_size": config["image_resolution"], "patch_size": 1}}
    if form.command == "make_openclip":
        text, vision = config["model_cfg"]["text_cfg"], config["model_cfg"]["vision_cfg"]
        text = {"vocab_size": text["vocab_size"], "max_position_embeddings": text["context_length"]}
        return {"text_config": text, "vision_config": {"image_size": vision["image_size"], "patch_size": 1}}
    return config


@pytest.fixture(scope="module")
def legacy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """transformers 4 and KerasHub."""
    from .conftest import LEGACY_PACKAGES

    environment = {"TF_USE_LEGACY_KERAS": "1", "USE_TORCH": "0", "KERAS_BACKEND": "jax"}
    log = tmp_path_factory.mktemp("legacy") / "log.txt"
    process = Process("legacy.py", log, PYTHONPATH=str(LEGACY_PACKAGES), **environment)
    yield process
    process.close()


SMALL = [form for form in formats() if form.size.startswith("tiny")]
LARGE = [form for form in formats() if not form.size.startswith("tiny")]


def name_of(form: Format) -> str:
    return f"{form.title}, {form.size}"


@pytest.fixture(
    scope="module", params=[*SMALL, *(pytest.param(one, marks=pytest.mark.real_size) for one in LARGE)], ids=name_of
)
def made(
    request: pytest.FixtureRequest, reference: Process, legacy: Process, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Format, Path]]:
    """A checkpoint in one format, the inputs, and what its own library makes of them."""
    form: Format = request.param
    folder = tmp_path_factory.mktemp("format")
    inputs = make_inputs(sizes_of(form), images=2)
    if form.command in ("make_openai", "make_openclip", "make_keras_hub"):
        del inputs["attention_mask"]  # theirs have none
        inputs["input_ids"] = np.where(
            np.cumsum(inputs["input_ids"] == inputs["input_ids"].max(), 1) > 1, 0, inputs["input_ids"]
        )
        inputs["input_ids"] = inputs["input_ids"].astype("int32")
    np.savez(folder / "inputs.npz", **inputs)
    config = folder / "wanted.json"
    config.write_text(json.dumps(form.config))
    files = (folder / "inputs.npz", folder / "theirs.npz")
    if form.command in ("shards", "bin"):
        reference("make", "CLIPModel", folder / "first", config)
        if form.command == "shards":
            reference("to_shards", folder / "first", folder / "made", "100KB" if form.size == "tiny" else "200MB")
        else:
            reference("to_bin", folder / "first", folder / "made", *form.words)
        reference("run", "CLIPModel", folder / "first", *files)
    elif form.command in ("make_openai", "make_openclip"):
        reference(form.command, folder / "made", *form.words, config, *files)
    else:
        legacy(form.command, folder / "made", *form.words, config, *files)
    yield form, folder
    shutil.rmtree(folder)


def results(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


def run_here(library: Process, kind: str, path: Path, folder: Path, reads: tuple[str, ...]) -> dict[str, np.ndarray]:
    inputs = {name: array for name, array in results(folder / "inputs.npz").items() if name in reads}
    np.savez(folder / "some.npz", **inputs)
    arguments = json.dumps({"num_labels": 3} if kind == "CLIPForImageClassification" else {})
    library("run", kind, path, folder / "some.npz", folder / "ours.npz", "{}", arguments)
    return results(folder / "ours.npz")


def test_the_joint_model(made: tuple[Format, Path], library: Process) -> None:
    form, folder = made
    ours = run_here(
        library, "CLIPModel", folder / "made" / form.file, folder, ("input_ids", "attention_mask", "pixel_values")
    )
    compare(("CLIPModel", f"{form.title}, {form.size}"), library.backend, ours, results(folder / "theirs.npz"))


# What follows is seen on the small checkpoints alone: all sizes of a format share its code.
@pytest.mark.parametrize("made", SMALL, ids=name_of, indirect=True)
def test_its_parts(made: tuple[Format, Path], library: Process) -> None:
    """Each class loads from the whole checkpoint."""
    form, folder = made
    theirs = results(folder / "theirs.npz")
    for kind in (*TOWERS, "CLIPResNetImageEncoder"):
        if ("ResNet" in form.size) != ("ResNet" in kind) and "Text" not in kind:
            continue
        side, reads = ("text", ("input_ids", "attention_mask")) if "Text" in kind else ("vision", ("pixel_values",))
        ours = run_here(library, kind, folder / "made" / form.file, folder, reads)
        embeds = "text_embeds" if side == "text" else "image_embeds"
        wanted = {name.removeprefix(f"{side}."): array for name, array in theirs.items() if name.startswith(f"{side}.")}
        features = theirs.get("text_features" if side == "text" else "image_features", theirs.get(embeds))
        wanted[embeds] = features
        if kind == "CLIPForImageClassification":
            # Its own outputs need a classifier, which no joint checkpoint has; that it loads is what is seen here.
            assert ours["logits"].shape == (2, 3)
            continue
        if kind in ("CLIPTextModel", "CLIPVisionModel"):
            del wanted[embeds]
            if not wanted:  # libraries that return the projected vector alone
                assert set(ours) == {"last_hidden_state", "pooler_output"}
                continue
        compare((kind, f"{form.title}, {form.size}"), library.backend, ours, wanted)


@pytest.mark.parametrize("made", SMALL, ids=name_of, indirect=True)
def test_out_and_in_again(made: tuple[Format, Path], library: Process, reference: Process) -> None:
    """Saved in Hugging Face's format and in OpenCLIP's: the same bits come back, and the others load it."""
    form, folder = made
    source, everything = folder / "made" / form.file, ("input_ids", "attention_mask", "pixel_values")
    first = run_here(library, "CLIPModel", source, folder, everything)
    row = "CLIPModel, out and in again", f"{form.title}, {form.size}"
    library("again", "CLIPModel", source, folder / "hf")
    back = run_here(library, "CLIPModel", folder / "hf", folder, everything)
    assert all(np.array_equal(first[name], back[name]) for name in first)
    if "ResNet" not in form.size and "logit_bias" not in form.title:
        reference("run", "CLIPModel", folder / "hf", folder / "some.npz", folder / "there.npz")
        compare((row[0], f"{row[1]}, to transformers 5"), library.backend, first, results(folder / "there.npz"))
    if form.config is ODD:  # OpenCLIP has one activation for both towers
        return
    library("as_openclip", source, folder / "oc")
    back = run_here(library, "CLIPModel", folder / "oc", folder, everything)
    assert all(np.array_equal(first[name], back[name]) for name in first)
    reference("run_openclip", folder / "oc", folder / "some.npz", folder / "there.npz")
    compare((row[0], f"{row[1]}, to OpenCLIP"), library.backend, first, results(folder / "there.npz"))
    shutil.rmtree(folder / "hf")
    shutil.rmtree(folder / "oc")
