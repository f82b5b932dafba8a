"""Runs transformers and PyTorch, in a process of their own, so that tf_clip is seen to need neither.

python reference.py make FOLDER CONFIG.json     save a random CLIPModel
python reference.py run KIND FOLDER INPUTS.npz  load a checkpoint, write FOLDER/KIND.npz
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers

INPUTS = {
    "CLIPTextModelWithProjection": ("input_ids", "attention_mask"),
    "CLIPVisionModelWithProjection": ("pixel_values",),
}


def make(folder: Path, config_path: Path) -> None:
    torch.manual_seed(0)
    model = transformers.CLIPModel(transformers.CLIPConfig(**json.loads(config_path.read_text())))
    with torch.no_grad():
        for parameter in model.parameters():
            # Fresh norms and biases are ones and zeros, which would hide a swapped or forgotten one.
            parameter.add_(0.02 * torch.randn_like(parameter))
        model.logit_scale.fill_(float(np.log(100.0)))
    model.save_pretrained(folder)


def tensors_of(inputs: Path) -> dict[str, torch.Tensor]:
    arrays = dict(np.load(inputs))
    arrays["pixel_values"] = arrays["pixel_values"].transpose(0, 3, 1, 2)  # channels first
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    return {name: tensor if tensor.is_floating_point() else tensor.long() for name, tensor in tensors.items()}


def load(kind: str, folder: Path) -> torch.nn.Module:
    model, report = getattr(transformers, kind).from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager", dtype=torch.float32
    )
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[problem]:
            raise SystemExit(f"{kind} reports {problem}: {report[problem]}")
    return model.eval()


@torch.no_grad()
def run(kind: str, folder: Path, inputs: Path) -> None:
    model = load(kind, folder)
    tensors = tensors_of(inputs)
    if kind in INPUTS:
        tensors = {name: tensors[name] for name in INPUTS[kind]}
    output = model(**tensors)
    results = {name: value for name, value in output.items() if torch.is_tensor(value)}
    if kind == "CLIPModel":
        for side in ("text", "vision"):
            results[f"{side}_last_hidden_state"] = output[f"{side}_model_output"].last_hidden_state
        texts = model.get_text_features(tensors["input_ids"], tensors.get("attention_mask"))
        results["text_features"] = texts.pooler_output
        results["image_features"] = model.get_image_features(tensors["pixel_values"]).pooler_output
    np.savez(folder / f"{kind}.npz", **{name: value.numpy() for name, value in results.items()})


def gradients(folder: Path, inputs: Path) -> None:
    model = load("CLIPModel", folder)
    loss = model(**tensors_of(inputs), return_loss=True).loss
    loss.backward()
    arrays = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    np.savez(folder / "gradients.npz", loss=loss.detach().numpy(), **arrays)


if __name__ == "__main__":
    command, *words = sys.argv[1:]
    if command == "make":
        make(Path(words[0]), Path(words[1]))
    elif command == "run":
        run(words[0], Path(words[1]), Path(words[2]))
    elif command == "gradients":
        gradients(Path(words[0]), Path(words[1]))
