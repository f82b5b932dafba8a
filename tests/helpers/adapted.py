"""What the tests of adapters share: the methods, the kinds of models, and how both are run."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from keras import ops

import tf_clip
from helpers.seeds import seed

# The narrowest forms that still are the method: towers here are 24 and 32 wide.
METHODS = {
    "seq_bn": "seq_bn[reduction_factor=4]",
    "double_seq_bn": "double_seq_bn[reduction_factor=4]",
    "par_bn": "par_bn",
    "scaled_par_bn": "scaled_par_bn[reduction_factor=4]",
    "adapter_plus": "adapter_plus[reduction_factor=4]",
    "seq_bn_inv": "seq_bn_inv[reduction_factor=4]",
    "double_seq_bn_inv": "double_seq_bn_inv[reduction_factor=4]",
    "own_norms": "seq_bn[reduction_factor=4,ln_before=True,ln_after=True,adapter_residual_before_ln=True]",
    "compacter": "compacter[reduction_factor=2]",
    "compacter++": "compacter++[reduction_factor=2]",
    "shared_compacter": "compacter++[reduction_factor=2,shared_W_phm=True,factorized_phm_rule=True]",
    "lora": "lora[r=3,alpha=6]",
    "lora_everywhere": "lora[r=2,attn_matrices=['q','k','v','o'],intermediate_lora=True,output_lora=True]",
    "rslora": "lora[r=4,use_rslora=True]",
    "ia3": "ia3",
    "dora": "dora[r=3]",
    "vera": "vera",
    "dvora": "dvora",
    "prefix_tuning": "prefix_tuning[prefix_length=3,bottleneck_size=5]",
    "prefix_tuning_flat": "prefix_tuning_flat[prefix_length=3]",
    "prompt_tuning": "prompt_tuning[prompt_length=3]",
    "loreft": "loreft[r=2,suffix_positions=1]",
    "noreft": "noreft",
    "direft": "direft[tied_weights=True,suffix_positions=2]",
    "mam": "prefix_tuning[prefix_length=3,bottleneck_size=5]|par_bn",
    "unipelt": "prefix_tuning[prefix_length=3,bottleneck_size=5,use_gating=True]"
    "|seq_bn[reduction_factor=4,use_gating=True]|lora[r=2,use_gating=True]",
}
MERGEABLE = ("lora", "lora_everywhere", "rslora", "ia3", "dora", "vera", "dvora")
KINDS = (
    "CLIPModel",
    "CLIPVisionModel",
    "CLIPTextModel",
    "CLIPTextEncoder",
    "CLIPImageEncoder",
    "CLIPForImageClassification",
)


class Case(NamedTuple):
    """A model and what it is fed with."""

    model: Any
    inputs: dict[str, Any]

    def run(self, **more: Any) -> np.ndarray:
        return result(self.model(**self.inputs, **more))

    def works_without(self, expected: np.ndarray) -> None:
        np.testing.assert_array_equal(self.run(), expected)


def array(tensor: Any, dtype: str | None = None) -> np.ndarray:
    """Returns a tensor of any backend as NumPy has it."""
    return np.asarray(ops.convert_to_numpy(tensor), dtype)


def result(output: Any) -> np.ndarray:
    """Returns the one array of an output that everything in the model has a part in."""
    for name in ("logits_per_image", "logits", "text_embeds", "image_embeds", "pooler_output"):
        if name in output:
            return array(output[name])
    raise KeyError(list(output))


def make(kind: str, config: Any, inputs: dict[str, Any]) -> Case:
    seed()
    texts = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    images = {"pixel_values": inputs["pixel_values"]}
    if kind == "CLIPModel":
        case = Case(tf_clip.CLIPModel(config), inputs)
    elif kind == "CLIPForImageClassification":
        case = Case(tf_clip.CLIPForImageClassification(config, num_labels=3), images)
    elif "Text" in kind:
        case = Case(getattr(tf_clip, kind)(config.text_config), texts)
    else:
        case = Case(getattr(tf_clip, kind)(config.vision_config), images)
    disturb(case.model.weights, 0.1)
    return case


def disturb(variables: list[Any], size: float, seed: int = 0) -> None:
    """Moves weights: fresh biases are zeros and fresh adapters do nothing, which hides mistakes."""
    generator = np.random.default_rng(seed)
    for variable in variables:
        if "seed_generator" not in variable.path:
            value = ops.convert_to_numpy(variable.value)
            variable.assign(value + size * generator.normal(size=value.shape).astype("float32"))


def parameters(model: Any, name: str) -> list[Any]:
    return [v for parts in model.adapters.get_adapter(name).values() for one in parts.values() for v in one.parameters]


def add(model: Any, name: str, config: Any, seed: int = 1, **options: Any) -> None:
    """Adds an adapter, every weight of it moved."""
    model.add_adapter(name, config, **options)
    disturb(parameters(model, name), 0.2, seed)


def value(variable: Any) -> np.ndarray:
    """Returns a copy of a variable's values."""
    return np.array(ops.convert_to_numpy(variable.value))
