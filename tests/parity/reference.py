"""Runs transformers, OpenCLIP and OpenAI's code on PyTorch, in a process of their own: tf_clip needs none of them.

Each command below is a list of words, read from stdin as JSON, a line each; see the functions for their words.
"""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.metadata
import importlib.util
import itertools
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from PIL import Image, ImageOps
from serving import serve

CONFIGS = {
    "CLIPModel": transformers.CLIPConfig,
    "CLIPForImageClassification": transformers.CLIPConfig,
    "CLIPTextModel": transformers.CLIPTextConfig,
    "CLIPTextModelWithProjection": transformers.CLIPTextConfig,
    "CLIPVisionModel": transformers.CLIPVisionConfig,
    "CLIPVisionModelWithProjection": transformers.CLIPVisionConfig,
}


def make(kind: str, folder: str, config: str) -> None:
    """Saves a random model of transformers."""
    torch.manual_seed(0)
    model = getattr(transformers, kind)(CONFIGS[kind](**json.loads(Path(config).read_text())))
    disturb(model)
    model.save_pretrained(folder)


def disturb(model: torch.nn.Module) -> None:
    """Moves every weight: fresh norms and biases are ones and zeros, which would hide a swapped or forgotten one."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name == "logit_scale":
                parameter.fill_(float(np.log(100.0)))  # as in every published checkpoint
            else:
                parameter.add_(0.02 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.add_(0.1 * torch.randn_like(buffer))
            elif name.endswith("running_var"):
                buffer.add_(torch.rand_like(buffer))


def to_bin(folder: str, target: str, parts: str) -> None:
    """Writes a folder of transformers again as pytorch_model.bin, whole or cut in parts, with what old files had."""
    weights = transformers.CLIPModel.from_pretrained(folder, dtype=torch.float32).state_dict()
    length = weights["text_model.embeddings.position_embedding.weight"].shape[0]
    weights["text_model.embeddings.position_ids"] = torch.arange(length)[None]
    Path(target).mkdir()
    (Path(target) / "config.json").write_text((Path(folder) / "config.json").read_text())
    if int(parts) == 1:
        torch.save(weights, Path(target) / "pytorch_model.bin")
        return
    weight_map = {}
    for part in range(int(parts)):
        name = f"pytorch_model-{part + 1:05d}-of-{int(parts):05d}.bin"
        some = dict(list(weights.items())[part :: int(parts)])
        torch.save(some, Path(target) / name)
        weight_map.update(dict.fromkeys(some, name))
    (Path(target) / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def to_shards(folder: str, target: str, size: str) -> None:
    """Writes a folder of transformers again as several safetensors files."""
    transformers.CLIPModel.from_pretrained(folder, dtype=torch.float32).save_pretrained(target, max_shard_size=size)


def to_version_4(kind: str, folder: str, target: str) -> None:
    """Writes a tower that was saved alone again with the prefixes of version 4."""
    model = load(kind, folder)
    prefix = {"CLIPTextModel": "text_model.", "CLIPVisionModel": "vision_model."}[kind]
    Path(target).mkdir()
    (Path(target) / "config.json").write_text((Path(folder) / "config.json").read_text())
    torch.save(
        {prefix + name: tensor for name, tensor in model.state_dict().items()}, Path(target) / "pytorch_model.bin"
    )


@functools.lru_cache(maxsize=1)
def load(kind: str, folder: str) -> torch.nn.Module:
    model, report = getattr(transformers, kind).from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager", dtype=torch.float32
    )
    problems = {name: report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys") if report[name]}
    if problems:
        raise ValueError(f"{kind} reports {problems}")
    return model.eval()


def tensors_of(inputs: str) -> dict[str, torch.Tensor]:
    with np.load(inputs) as file:
        tensors = {name: torch.from_numpy(file[name]) for name in file}
    if "pixel_values" in tensors:
        tensors["pixel_values"] = tensors["pixel_values"].permute(0, 3, 1, 2).contiguous()  # channels first
    return {name: tensor if tensor.is_floating_point() else tensor.long() for name, tensor in tensors.items()}


def flat(output: Any, prefix: str = "") -> dict[str, torch.Tensor]:
    """Returns every tensor of an output, tuples by their numbers."""
    results = {}
    for name, value in output.items():
        if torch.is_tensor(value):
            results[prefix + name] = value
        elif isinstance(value, tuple):
            results.update({f"{prefix}{name}.{index}": part for index, part in enumerate(value)})
    return results


@torch.no_grad()
def run(kind: str, folder: str, inputs: str, outputs: str, options: str = "{}") -> None:
    """Loads a checkpoint with transformers and saves what it returns."""
    model, tensors, chosen = load(kind, folder), tensors_of(inputs), json.loads(options)
    if kind != "CLIPModel":
        results = flat(model(**tensors, **chosen))
    else:
        pairs = len(tensors["input_ids"]) == len(tensors["pixel_values"])
        results = flat(model(**tensors, **chosen, return_loss=pairs))
        pixels = tensors.pop("pixel_values")
        stretch = {"interpolate_pos_encoding": chosen.pop("interpolate_pos_encoding", False)}
        # CLIPModel's own outputs hold the projected vector under this name; the towers' hold the pooled state.
        results.update(flat(model.text_model(**tensors, **chosen), "text."))
        results.update(flat(model.vision_model(pixels, **chosen, **stretch), "vision."))
        results["text_features"] = model.get_text_features(**tensors).pooler_output
        results["image_features"] = model.get_image_features(pixels, **stretch).pooler_output
    np.savez(outputs, **{name: value.numpy() for name, value in results.items()})


class _StandIn(type):
    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class _Module(types.ModuleType):
    """Stands for a module whose names are looked up at import and never used by a model."""

    __path__: list[str] = []  # noqa: RUF012 - what makes a package of it

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _StandIn(name, (), {})


@functools.cache
def open_clip() -> types.ModuleType:
    """Imports OpenCLIP without torchvision and ftfy: its models use neither, and no build without CUDA is to be had."""
    for name in ("torchvision", "torchvision.ops", "torchvision.ops.misc", "torchvision.transforms", "ftfy"):
        sys.modules[name] = module = _Module(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    sys.modules["torchvision.transforms.functional"] = functional = _Module("torchvision.transforms.functional")
    sys.modules["torchvision.transforms"].functional = functional  # type: ignore[attr-defined]
    import open_clip

    return open_clip


@functools.cache
def openai() -> types.ModuleType:
    """Imports the file of OpenAI's package that has the models; the rest needs torchvision."""
    (path,) = [file.locate() for file in importlib.metadata.files("openai-clip") or [] if file.name == "model.py"]
    spec = importlib.util.spec_from_file_location("openai_model", str(path))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@torch.no_grad()
def make_openai(target: str, arguments: str, inputs: str, outputs: str) -> None:
    """Saves OpenAI's model with random weights as they published theirs, and what it returns in float32."""
    torch.manual_seed(0)
    model = openai().CLIP(**json.loads(Path(arguments).read_text()))
    disturb(model)
    openai().convert_weights(model)  # to float16
    tensors = tensors_of(inputs)
    sizes = {"input_resolution": tensors["pixel_values"].shape[-1], "context_length": model.context_length}
    for name, size in {**sizes, "vocab_size": model.vocab_size}.items():
        delattr(model, name) if hasattr(model, name) else None
        model.register_buffer(name, torch.tensor(size))
    example = (tensors["pixel_values"].half(), tensors["input_ids"])
    traced = torch.jit.trace(model.eval(), example, check_trace=False)
    Path(target).mkdir()
    traced.save(Path(target) / "model.pt")
    save_features(model.float(), tensors, outputs)


@torch.no_grad()
def make_openclip(target: str, file: str, config: str, inputs: str, outputs: str) -> None:
    """Saves a random model of OpenCLIP under one of its files' names, and what it returns."""
    torch.manual_seed(0)
    described = json.loads(Path(config).read_text())
    arguments = dict(described["model_cfg"])
    kind = open_clip().CustomTextCLIP if arguments.pop("custom_text", False) else open_clip().CLIP
    model = kind(**arguments).eval()
    disturb(model)
    path = Path(target) / file
    Path(target).mkdir()
    (Path(target) / "open_clip_config.json").write_text(json.dumps(described))
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    elif path.suffix == ".pt":  # a training checkpoint of several processes
        weights = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
        torch.save({"epoch": 3, "state_dict": weights, "optimizer": {}}, path)
    else:
        torch.save(model.state_dict(), path)
    save_features(model, tensors_of(inputs), outputs)


@torch.no_grad()
def run_openclip(folder: str, inputs: str, outputs: str) -> None:
    """Loads what tf_clip wrote with OpenCLIP, strictly, and saves what it returns."""
    from safetensors.torch import load_file

    described = json.loads((Path(folder) / "open_clip_config.json").read_text())
    model = open_clip().CLIP(**described["model_cfg"]).eval()
    model.load_state_dict(load_file(Path(folder) / "open_clip_model.safetensors"), strict=True)
    save_features(model, tensors_of(inputs), outputs)


def list_openclip(target: str) -> None:
    """Writes what OpenCLIP knows of its pretrained models: a row each."""
    rows = []
    for name, tags in open_clip().pretrained._PRETRAINED.items():
        for tag in tags:
            settings = open_clip().pretrained.get_pretrained_cfg(name, tag)
            described = open_clip().get_model_config(name)
            rows.append({"hub_id": settings.get("hf_hub", "").rstrip("/"), "model_cfg": described, **settings})
    Path(target).write_text(json.dumps(rows))


def count_operations(arguments: str, target: str) -> None:
    """Counts what OpenAI's model with these arguments does, by PyTorch's own counter."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        model = openai().CLIP(**json.loads(Path(arguments).read_text())).eval()
        size, length = model.visual.input_resolution, model.context_length
        with FlopCounterMode(display=False) as of_images:
            model.encode_image(torch.zeros(1, 3, size, size))
        with FlopCounterMode(display=False) as of_texts:
            model.encode_text(torch.zeros(1, length, dtype=torch.long))
    counts = {"image": of_images.get_total_flops(), "text": of_texts.get_total_flops()}
    counts["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    Path(target).write_text(json.dumps(counts))


def save_features(model: Any, tensors: dict[str, torch.Tensor], outputs: str) -> None:
    text, image = model.encode_text(tensors["input_ids"]), model.encode_image(tensors["pixel_values"])
    text_embeds, image_embeds = (x / x.norm(dim=-1, keepdim=True) for x in (text, image))
    logits = model.logit_scale.exp() * text_embeds @ image_embeds.T
    if getattr(model, "logit_bias", None) is not None:
        logits = logits + model.logit_bias
    results = {"text_features": text, "image_features": image, "text_embeds": text_embeds, "image_embeds": image_embeds}
    np.savez(outputs, logits_per_text=logits.numpy(), **{name: value.numpy() for name, value in results.items()})


def gradients(folder: str, inputs: str, outputs: str) -> None:
    model = load("CLIPModel", folder)
    model.zero_grad()
    loss = model(**tensors_of(inputs), return_loss=True).loss
    loss.backward()
    arrays = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    np.savez(outputs, loss=loss.detach().numpy(), **arrays)


def train_one_step(folder: str, inputs: str, outputs: str, learning_rate: str) -> None:
    """Makes one step of plain gradient descent on the contrastive loss; saves the loss and the weights after it."""
    model, _ = transformers.CLIPModel.from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager", dtype=torch.float32
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=float(learning_rate))
    loss = model(**tensors_of(inputs), return_loss=True).loss
    loss.backward()
    optimizer.step()
    weights = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    np.savez(outputs, loss=loss.detach().numpy(), **weights)


def update(outputs: str, inputs: str, options: str) -> None:
    """Lets AdamW walk along given gradients `[steps, ...]` from given weights; saves where it is after each step."""
    with np.load(inputs) as file:
        weights, gradients = torch.nn.Parameter(torch.from_numpy(file["weights"])), torch.from_numpy(file["gradients"])
    optimizer = torch.optim.AdamW([weights], **json.loads(options))
    path = []
    for gradient in gradients:
        weights.grad = gradient.clone()
        optimizer.step()
        path.append(weights.detach().numpy().copy())
    np.savez(outputs, path=np.stack(path))


def losses(inputs: str, outputs: str) -> None:
    """Saves OpenCLIP's losses of features, and their gradients by these and by scale and bias."""
    losses_of = open_clip().loss
    from_openclip = {"ContrastiveLoss": losses_of.ClipLoss(), "SigmoidLoss": losses_of.SigLipLoss()}
    with np.load(inputs) as file:
        values = {name: torch.from_numpy(file[name]) for name in ("image_embeds", "text_embeds", "scale", "bias")}
    arrays = {}
    for name, loss in from_openclip.items():
        leaves = {key: value.clone().requires_grad_() for key, value in values.items()}
        found = loss(leaves["image_embeds"], leaves["text_embeds"], leaves["scale"], leaves["bias"])
        found.backward()
        arrays[name] = found.detach().numpy()
        arrays |= {f"{name} {key}": leaf.grad.numpy() for key, leaf in leaves.items() if leaf.grad is not None}
    # What is smoothed and several positives, by torch's own cross-entropy of soft targets.
    with np.load(inputs) as file:
        ids = torch.from_numpy(file["pair_ids"])
    logits = values["scale"] * values["text_embeds"] @ values["image_embeds"].T
    targets = (ids[:, None] == ids[None]).float()
    targets = targets / targets.sum(1, keepdim=True)
    both = [torch.nn.functional.cross_entropy(x, targets, label_smoothing=0.1) for x in (logits, logits.T)]
    np.savez(outputs, smoothed=(sum(both) / 2).numpy(), **arrays)


def make_processor(folder: str, vocabulary: str) -> None:
    parts = json.loads(Path(vocabulary).read_text())
    tokenizer = transformers.CLIPTokenizer(vocab=parts["vocab"], merges=[tuple(pair) for pair in parts["merges"]])
    images = transformers.CLIPImageProcessorPil()
    transformers.CLIPProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(folder)


@functools.lru_cache(maxsize=1)
def load_tokenizer(folder: str) -> transformers.CLIPTokenizer:
    return transformers.AutoTokenizer.from_pretrained(folder)


def encode(source: str, texts: str, outputs: str) -> None:
    """Saves the ids of texts, without start and end, as one array.

    Args:
        source: a folder that transformers reads, or a tokenizer.json that `tokenizers` reads alone.
        texts: a list, in JSON.
        outputs: an .npz file for `input_ids` and `lengths`.
    """
    tokenizer = (
        tokenizers.Tokenizer.from_file(source) if source.endswith(".json") else load_tokenizer(source)._tokenizer
    )
    tokenizer.no_padding()
    tokenizer.no_truncation()
    found = tokenizer.encode_batch_fast(json.loads(Path(texts).read_text()), add_special_tokens=False)
    save_rows(outputs, input_ids=[one.ids for one in found])


def encode_with(folder: str, texts: str, outputs: str, options: str) -> None:
    """Saves what a tokenizer returns when it is called with some options, JSON."""
    tokenizer = load_tokenizer(folder)
    chosen = json.loads(options)
    tokenizer.truncation_side = chosen.pop("truncation_side", "right")
    save_rows(outputs, **tokenizer(json.loads(Path(texts).read_text()), **chosen))


def encode_with_offsets(folder: str, texts: str, outputs: str) -> None:
    """Saves the ids of texts, and the first and the last character of each token."""
    rows = load_tokenizer(folder)(
        json.loads(Path(texts).read_text()), add_special_tokens=False, return_offsets_mapping=True
    )
    starts, ends = ([[pair[side] for pair in row] for row in rows["offset_mapping"]] for side in (0, 1))
    save_rows(outputs, input_ids=rows["input_ids"], starts=starts, ends=ends)


def decode(folder: str, ids: str, outputs: str) -> None:
    """Writes the strings of rows of ids, with special tokens and without."""
    tokenizer, rows = load_tokenizer(folder), json.loads(Path(ids).read_text())
    found = [tokenizer.batch_decode(rows, skip_special_tokens=skip) for skip in (False, True)]
    Path(outputs).write_text(json.dumps(found))


def save_rows(outputs: str, **named: list[list[int]]) -> None:
    """Saves rows of numbers as flat arrays, which are read in no time, and the rows' lengths."""
    arrays = {name: np.fromiter(itertools.chain.from_iterable(rows), np.int32) for name, rows in named.items()}
    np.savez(outputs, lengths=np.fromiter(map(len, named["input_ids"]), np.int64), **arrays)


def pixels(folder: str, images: str, options: str, outputs: str) -> None:
    """Prepares all images of a folder as an image processor that was saved says, but for other options."""
    # Beside torchvision, version 5 picks a resize of its own that differs from Pillow's by single levels.
    processor, changes = transformers.CLIPImageProcessorPil.from_pretrained(folder), json.loads(options)
    arrays = {}
    for path in Path(images).iterdir():
        image = ImageOps.exif_transpose(Image.open(path))
        arrays[path.name] = processor(image, **changes)["pixel_values"][0].transpose(1, 2, 0)
    np.savez(outputs, **arrays)


def list_templates(outputs: str) -> None:
    """Writes the templates that OpenCLIP has of OpenAI."""
    sets = {
        "imagenet": open_clip().OPENAI_IMAGENET_TEMPLATES,
        "imagenet_simple": open_clip().SIMPLE_IMAGENET_TEMPLATES,
    }
    Path(outputs).write_text(json.dumps({name: [make("{}") for make in makers] for name, makers in sets.items()}))


def classify_zero_shot(inputs: str, outputs: str) -> None:
    """Saves OpenCLIP's zero-shot classifier of given text features, and how its evaluation scores given images.

    Every sentence, "3 7", stands for a row of features: that of class 3 in template 7.
    """
    with np.load(inputs) as file:
        features, images, targets = (torch.from_numpy(file[name]) for name in ("features", "images", "targets"))

    class Model:
        def encode_text(self, places: torch.Tensor, normalize: bool = False) -> torch.Tensor:
            found = features[places[:, 0], places[:, 1]]
            return torch.nn.functional.normalize(found, dim=-1) if normalize else found

    weights = open_clip().build_zero_shot_classifier(
        Model(),
        lambda texts: torch.tensor([[int(word) for word in text.split()] for text in texts]),
        [str(name) for name in range(features.shape[0])],
        [f"{{}} {place}" for place in range(features.shape[1])],
    )
    # As open_clip_train.zero_shot does: the package has no function of it.
    logits = 100.0 * torch.nn.functional.normalize(images, dim=-1) @ weights
    found = logits.topk(5, 1, True, True)[1].t()
    correct = found.eq(targets.view(1, -1).expand_as(found))
    accuracies = {f"top{k}": float(correct[:k].reshape(-1).float().sum()) / len(targets) for k in (1, 5)}
    np.savez(outputs, weights=weights.T.numpy(), logits=logits.numpy(), **accuracies)


def retrieve(inputs: str, outputs: str) -> None:
    """Saves what OpenCLIP's training reports of pairs: the ranks of both directions, and figures of them."""
    with np.load(inputs) as file:
        images, texts = torch.from_numpy(file["images"]), torch.from_numpy(file["texts"])
    images, texts = (torch.nn.functional.normalize(rows, dim=-1) for rows in (images, texts))
    logits_per_image = 100.0 * images @ texts.t()
    results = {}
    # As open_clip_train.train.get_clip_metrics does: the package has no function of it.
    for name, logits in {"image_to_text": logits_per_image, "text_to_image": logits_per_image.t()}.items():
        ranking = torch.argsort(logits, descending=True)
        places = torch.where(ranking == torch.arange(len(texts)).view(-1, 1))[1].numpy()
        results[f"{name}_mean_rank"] = places.mean() + 1
        results[f"{name}_median_rank"] = np.floor(np.median(places)) + 1
        for k in (1, 5, 10):
            results[f"{name}_R@{k}"] = np.mean(places < k)
    np.savez(outputs, **results)


if __name__ == "__main__":
    serve(
        *(make, to_bin, to_shards, to_version_4, run, gradients, make_processor, pixels),
        *(train_one_step, update, losses),
        *(encode, encode_with, encode_with_offsets, decode),
        *(make_openai, make_openclip, run_openclip, list_openclip, count_operations),
        *(list_templates, classify_zero_shot, retrieve),
    )
