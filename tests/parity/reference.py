"""Runs transformers and PyTorch, in a process of their own, so that tf_clip is seen to need neither.

python reference.py make KIND FOLDER CONFIG.json                save a random model
python reference.py run KIND FOLDER INPUTS.npz OUTPUTS.npz      load a checkpoint, save what it returns
python reference.py gradients FOLDER INPUTS.npz OUTPUTS.npz     the same for the loss and its gradients
python reference.py make_processor FOLDER VOCABULARY.json       save a CLIPProcessor
python reference.py tokenize FOLDER TEXTS.json IDS.json         load it, save token ids, whole and cut to 77
python reference.py pixels FOLDER PICTURES OUTPUTS.npz          load it, save the pixel values of PICTURES/*.png
python reference.py serve                                       read such commands from stdin, a JSON list a line
"""

import functools
import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image

CONFIGS = {
    "CLIPModel": transformers.CLIPConfig,
    "CLIPTextModelWithProjection": transformers.CLIPTextConfig,
    "CLIPVisionModelWithProjection": transformers.CLIPVisionConfig,
}


def make(kind: str, folder: str, config: str) -> None:
    torch.manual_seed(0)
    model = getattr(transformers, kind)(CONFIGS[kind](**json.loads(Path(config).read_text())))
    with torch.no_grad():
        for parameter in model.parameters():
            # Fresh norms and biases are ones and zeros, which would hide a swapped or forgotten one.
            parameter.add_(0.02 * torch.randn_like(parameter))
        if kind == "CLIPModel":
            model.logit_scale.fill_(float(np.log(100.0)))  # as in every published checkpoint
    model.save_pretrained(folder)


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


@torch.no_grad()
def run(kind: str, folder: str, inputs: str, outputs: str) -> None:
    model, tensors = load(kind, folder), tensors_of(inputs)
    pairs = len(tensors.get("input_ids", ())) == len(tensors.get("pixel_values", ()))
    output = model(**tensors, return_loss=True) if pairs else model(**tensors)
    results = {name: value for name, value in output.items() if torch.is_tensor(value)}
    if kind == "CLIPModel":
        pixels = tensors.pop("pixel_values")
        # CLIPModel's own outputs hold the projected vector under this name; the towers' hold the pooled state.
        for side, states in (("text", model.text_model(**tensors)), ("vision", model.vision_model(pixels))):
            results[f"{side}_last_hidden_state"] = states.last_hidden_state
            results[f"{side}_pooler_output"] = states.pooler_output
        results["text_features"] = model.get_text_features(**tensors).pooler_output
        results["image_features"] = model.get_image_features(pixels).pooler_output
    np.savez(outputs, **{name: value.numpy() for name, value in results.items()})


def gradients(folder: str, inputs: str, outputs: str) -> None:
    model = load("CLIPModel", folder)
    model.zero_grad()
    loss = model(**tensors_of(inputs), return_loss=True).loss
    loss.backward()
    arrays = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    np.savez(outputs, loss=loss.detach().numpy(), **arrays)


def make_processor(folder: str, vocabulary: str) -> None:
    parts = json.loads(Path(vocabulary).read_text())
    tokenizer = transformers.CLIPTokenizer(vocab=parts["vocab"], merges=[tuple(pair) for pair in parts["merges"]])
    images = transformers.CLIPImageProcessorPil()
    transformers.CLIPProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(folder)


@functools.lru_cache(maxsize=1)
def load_processor(folder: str) -> transformers.CLIPProcessor:
    processor = transformers.CLIPProcessor.from_pretrained(folder)
    # Beside torchvision, version 5 picks a resize of its own that differs from Pillow's by single levels.
    processor.image_processor = transformers.CLIPImageProcessorPil.from_pretrained(folder)
    return processor


def tokenize(folder: str, texts: str, ids: str) -> None:
    tokenizer, sample = load_processor(folder).tokenizer, json.loads(Path(texts).read_text())
    rows = {"whole": tokenizer(sample), "cut": tokenizer(sample, truncation=True, max_length=77)}
    rows["padded"] = tokenizer(sample, padding=True, truncation=True, max_length=77)
    Path(ids).write_text(json.dumps({name: dict(row) for name, row in rows.items()}))


def pixels(folder: str, pictures: str, outputs: str) -> None:
    processor = load_processor(folder)
    arrays = {
        path.stem: processor(images=Image.open(path), return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
        for path in Path(pictures).glob("*.png")
    }
    np.savez(outputs, **arrays)


def serve() -> None:
    """Loading torch takes longer than most commands, so that one process serves a whole session."""
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        command, *words = json.loads(line)
        try:
            COMMANDS[command](*words)
        except Exception:
            traceback.print_exc()
            print("failed", file=answers, flush=True)
        else:
            print("done", file=answers, flush=True)


COMMANDS: dict[str, Callable[..., None]] = {
    function.__name__: function for function in (make, run, gradients, make_processor, tokenize, pixels, serve)
}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*sys.argv[2:])
