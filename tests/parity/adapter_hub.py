"""Runs AdapterHub's `adapters` and PEFT on transformers 4 and PyTorch, by commands like those of reference.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import adapters
import numpy as np
import peft
import torch
import transformers
from adapters.composition import BatchSplit, Fuse, Stack
from serving import serve

RATE = 0.1
NAMES = {"Stack": Stack, "BatchSplit": BatchSplit, "Fuse": Fuse}


def model_of(kind: str, folder: str) -> Any:
    return getattr(transformers, kind).from_pretrained(folder, attn_implementation="eager").eval()


def inputs_of(kind: str, inputs: str) -> dict[str, torch.Tensor]:
    with np.load(inputs) as file:
        tensors = {name: torch.from_numpy(value) for name, value in file.items()}
    tensors["pixel_values"] = tensors["pixel_values"].permute(0, 3, 1, 2)  # channels first
    if "Text" in kind:
        del tensors["pixel_values"]
    return {"pixel_values": tensors["pixel_values"]} if "Vision" in kind else tensors


def results_of(output: Any) -> dict[str, np.ndarray]:
    names = ("text_embeds", "image_embeds") if "text_embeds" in output else ("pooler_output", "last_hidden_state")
    return {name: output[name].detach().numpy() for name in names}


def disturb(model: torch.nn.Module, marks: tuple[str, ...]) -> None:
    """Moves the weights of adapters: of VeRA's matrices the diagonals alone, of reflections all but these signs."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(mark in name for mark in marks) and ".base" not in name:
                step = 0.05 * torch.randn_like(parameter)
                if name.endswith(".original"):
                    step.fill_diagonal_(0.0)
                parameter.add_(torch.diag(torch.diag(step)) if ".vera_" in name else step)


def step(model: Any, kind: str, tensors: dict[str, torch.Tensor]) -> None:
    """Takes one step of plain descent."""
    chosen = [parameter for parameter in model.parameters() if parameter.requires_grad]
    output = model(**tensors, return_loss=True) if kind == "CLIPModel" else model(**tensors)
    loss = output.loss if kind == "CLIPModel" else output.pooler_output.square().mean()
    loss.backward()
    torch.optim.SGD(chosen, RATE).step()


def make(kind: str, config: str, folder: str) -> None:
    """Saves a random model."""
    torch.manual_seed(0)
    model = getattr(transformers, kind)(transformers.CLIPConfig(**json.loads(Path(config).read_text())))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(0.02 * torch.randn_like(parameter)) if name != "logit_scale" else parameter
    model.save_pretrained(folder)


def adapted(kind: str, base: str, names: list[str], config: Any) -> Any:
    model = model_of(kind, base)
    adapters.init(model)
    for name in names:
        model.add_adapter(name, config=config)
    return model


def hub(kind: str, base: str, config: str, inputs: str, folder: str) -> None:
    """Saves an adapter, what the model makes with it, with it merged, and the adapter after one step."""
    options, tensors = json.loads(config), inputs_of(kind, inputs)
    model = adapted(kind, base, ["a"], options["config"])
    disturb(model, (".a.",))
    save(model, folder)
    model.set_active_adapters("a")
    with torch.no_grad():
        np.savez(f"{folder}/active.npz", **results_of(model(**tensors)))
        if options.get("merge"):
            model.merge_adapter("a")
            np.savez(f"{folder}/merged.npz", **results_of(model(**tensors)))
            model.reset_adapter()
    if options.get("step"):
        model.train_adapter("a")
        model.eval()
        step(model, kind, tensors)
        save(model, f"{folder}/stepped")


def save(model: Any, folder: str) -> None:
    """Saves an adapter with what its layers share, which `adapters` forgets."""
    model.save_adapter(folder, "a")
    shared = {name: value for name, value in model.state_dict().items() if "shared_parameters.a." in name}
    if shared:
        path = f"{folder}/pytorch_adapter.bin"
        shared = {name[name.index("shared_parameters") :]: value for name, value in shared.items()}
        torch.save({**torch.load(path), **shared}, path)


def hub_composed(kind: str, base: str, block: str, sizes: str, inputs: str, folder: str) -> None:
    """Saves two adapters, maybe their fusion, and what the model makes with both."""
    tensors = inputs_of(kind, inputs)
    model = adapted(kind, base, ["a", "b"], json.loads(sizes)["config"])
    options = json.loads(sizes).get("options", {})
    setup = NAMES[block]("a", "b", **options)
    if block == "Fuse":
        model.add_adapter_fusion(setup)
    disturb(model, (".a.", ".b.", ".a,b."))
    model.set_active_adapters(setup)
    model.save_adapter_setup(folder, setup)
    with torch.no_grad():
        np.savez(f"{folder}/active.npz", **results_of(model(**tensors)))


def hub_reads(kind: str, base: str, adapter: str, inputs: str, outputs: str) -> None:
    """Loads an adapter that was saved elsewhere, and saves what the model makes with it."""
    model = model_of(kind, base)
    adapters.init(model)
    information: dict[str, Any] = {}
    name = model.load_adapter(adapter, loading_info=information, use_safetensors=True)
    missing = [key for key in information.get("missing_keys", []) if ".pool." not in key]
    assert not missing and not information.get("unexpected_keys"), information
    model.set_active_adapters(name)
    with torch.no_grad():
        np.savez(outputs, **results_of(model(**inputs_of(kind, inputs))))


def peft_makes(kind: str, base: str, config: str, inputs: str, folder: str) -> None:
    """Saves an adapter of PEFT's, what the model makes with it, with it merged, and the adapter after one step."""
    tensors = inputs_of(kind, inputs)
    model = peft.get_peft_model(model_of(kind, base), peft.LoraConfig(**json.loads(config)))
    disturb(model, ("lora_",))
    model.save_pretrained(folder)
    with torch.no_grad():
        np.savez(f"{folder}/active.npz", **results_of(model(**tensors)))
    model.eval()
    step(model, kind, tensors)
    model.save_pretrained(f"{folder}/stepped")


def peft_reads(kind: str, base: str, adapter: str, inputs: str, outputs: str) -> None:
    """Loads an adapter that was saved elsewhere, and saves what the model makes with it, merged."""
    model = peft.PeftModel.from_pretrained(model_of(kind, base), adapter).eval()
    with torch.no_grad():
        np.savez(outputs, **results_of(model(**inputs_of(kind, inputs))))


if __name__ == "__main__":
    serve(make, hub, hub_composed, hub_reads, peft_makes, peft_reads)
