"""Translates between OpenCLIP's `open_clip_config.json` and Hugging Face's `config.json`.

A field that is unknown, or has a value that these towers cannot honor, is an error: OpenCLIP's format also
holds SigLIP, CoCa, EVA, ConvNeXt and others.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from tf_clip.checkpoints import files, save
from tf_clip.checkpoints.assign import Variable
from tf_clip.families.clip import openai
from tf_clip.families.tensor_names import SourceTensor
from tf_clip.files import replacing_files

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
_RESAMPLES = {"bicubic": 3, "bilinear": 2}

# Fields that may be there with just these values, which mean "as in CLIP"; None stands for any value.
_Allowed: TypeAlias = Mapping[str, "tuple[Any, ...] | None"]
_BLOCK_FIELDS: _Allowed = {
    "ls_init_value": (None,),
    "output_tokens": (False,),
    "block_type": (None, "default"),
    "final_ln_after_pool": (False,),
    **dict.fromkeys(
        ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc"), (False,)
    ),
}
_VISION_FIELDS: _Allowed = {
    **_BLOCK_FIELDS,
    "patch_dropout": None,  # in training only
    "attentional_pool": (False,),
    "attn_pooler_queries": None,
    "attn_pooler_heads": None,
    "no_ln_pre": (False,),
    "pos_embed_type": ("learnable",),
    "pool_type": ("tok",),
}
_TEXT_FIELDS: _Allowed = {
    **_BLOCK_FIELDS,
    "embed_cls": (False,),
    "pad_id": None,
    "no_causal_mask": (False,),
    "pool_type": ("argmax", "eos"),
    "proj_bias": (False,),
    "proj_type": ("linear",),
    # What makes ids of a text is the tokenizer's affair.
    **dict.fromkeys(("hf_tokenizer_name", "tokenizer_kwargs", "tokenizer_mode")),
}


def to_config(described: Mapping[str, Any], source: str, *, has_logit_bias: bool = False) -> dict[str, Any]:
    """Returns the Hugging Face `config.json` of an `open_clip_config.json`, both parsed.

    Args:
        described: the file, or its `model_cfg` alone.
        source: where it was found, for messages.
        has_logit_bias: whether the weights have one, which some files do not say.

    Raises:
        ValueError: it describes another architecture, or a field cannot be honored.
    """
    model = dict(described.get("model_cfg", described))
    vision, text = dict(_take(model, "vision_cfg", source)), dict(_take(model, "text_cfg", source))
    embed_dim = int(_take(model, "embed_dim", source))
    quick_gelu = bool(model.pop("quick_gelu", False))
    scale, bias = model.pop("init_logit_scale", None), model.pop("init_logit_bias", None)
    model.pop("custom_text", None)  # another arrangement of the same tensors
    # Read by OpenCLIP's transforms and loaders only.
    for name in ("preprocess_cfg", "nonscalar_logit_scale", "output_dict", "cast_dtype"):
        model.pop(name, None)
    _require_known(model, {}, source, "model_cfg")
    config: dict[str, Any] = {
        "model_type": "clip",
        "projection_dim": embed_dim,
        "text_config": _text_config(text, quick_gelu, embed_dim, source),
        "vision_config": _vision_config(vision, quick_gelu, embed_dim, source),
    }
    if scale is not None:
        config["logit_scale_init_value"] = float(scale)
    if bias is not None or has_logit_bias:
        config["logit_bias_init_value"] = float(bias or 0.0)
    return config


def _vision_config(fields: dict[str, Any], quick_gelu: bool, embed_dim: int, source: str) -> dict[str, Any]:
    for name in ("timm_model_name", "timm_model_pretrained"):
        if fields.get(name):
            raise ValueError(
                f"`vision_cfg` must describe CLIP's own towers. Received: {name}={fields[name]!r} in {source}. This is "
                "another architecture, as SigLIP's and EVA's are, which tf_clip does not have."
            )
    fields = {name: value for name, value in fields.items() if not name.startswith("timm_")}
    layers = fields.pop("layers", 12)
    width = fields.pop("width", 768)
    size = fields.pop("image_size", 224)
    if isinstance(size, (list, tuple)):
        if len(set(size)) != 1:
            raise ValueError(
                f"`image_size` must be square. Received: {list(size)} in {source}. tf_clip needs a square."
            )
        size = size[0]
    if isinstance(layers, (list, tuple)):
        head_width = fields.pop("head_width", 64)
        for name in ("patch_size", "mlp_ratio"):
            fields.pop(name, None)
        _require_known(fields, _VISION_FIELDS, source, "vision_cfg")
        return {
            "model_type": "clip_resnet_model",
            "depths": list(layers),
            "embedding_size": width,
            "num_attention_heads": width * 32 // head_width,
            "image_size": size,
            "projection_dim": embed_dim,
        }
    shared = _shared(fields, width, quick_gelu, source)
    head_width, patch_size = fields.pop("head_width", 64), fields.pop("patch_size", 16)
    _require_known(fields, _VISION_FIELDS, source, "vision_cfg")
    return {
        "model_type": "clip_vision_model",
        **shared,
        "num_hidden_layers": layers,
        "num_attention_heads": width // head_width,
        "image_size": size,
        "patch_size": patch_size[0] if isinstance(patch_size, (list, tuple)) else patch_size,
        "projection_dim": embed_dim,
    }


def _text_config(fields: dict[str, Any], quick_gelu: bool, embed_dim: int, source: str) -> dict[str, Any]:
    for name in ("hf_model_name", "hf_model_config"):
        if fields.get(name):
            raise ValueError(
                f"`text_cfg` must describe CLIP's own text tower. Received: {name}={fields[name]!r} in {source}. "
                "tf_clip does not have other text towers."
            )
    width, vocab_size = fields.pop("width", 512), fields.pop("vocab_size", 49408)
    shared = _shared(fields, width, quick_gelu, source)
    heads, layers = fields.pop("heads", 8), fields.pop("layers", 12)
    length = fields.pop("context_length", 77)
    # "argmax" pools at the highest id, which is the one that ends a text; only "eos" reads eos_id.
    eos, pool = fields.pop("eos_id", 2), fields.get("pool_type", "argmax")
    _require_known(fields, _TEXT_FIELDS, source, "text_cfg")
    return {
        "model_type": "clip_text_model",
        **shared,
        "vocab_size": vocab_size,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": length,
        "pad_token_id": 0,
        "bos_token_id": vocab_size - 2,
        "eos_token_id": eos if pool == "eos" else vocab_size - 1,
        "projection_dim": embed_dim,
    }


def _shared(fields: dict[str, Any], width: int, quick_gelu: bool, source: str) -> dict[str, Any]:
    """Takes the fields that both transformers have out of their dictionary."""
    activation = "quick_gelu" if quick_gelu else "gelu"
    arguments = fields.pop("act_kwargs", None) or {}
    if arguments:
        if arguments != {"approximate": "tanh"}:
            raise ValueError(
                f"`act_kwargs` must be {{'approximate': 'tanh'}} or absent. Received: {arguments} in {source}. "
                "Features computed with another activation would be wrong."
            )
        activation = activation if quick_gelu else "gelu_pytorch_tanh"
    norm = dict(fields.pop("norm_kwargs", None) or {})
    epsilon = norm.pop("eps", 1e-5)
    _require_known(norm, {}, source, "norm_kwargs")
    return {
        "hidden_size": width,
        "intermediate_size": int(width * fields.pop("mlp_ratio", 4.0)),
        "hidden_act": activation,
        "layer_norm_eps": epsilon,
    }


def _require_known(fields: Mapping[str, Any], allowed: _Allowed, source: str, part: str) -> None:
    wrong = [
        f"{name}={value!r}"
        for name, value in fields.items()
        if name not in allowed or (allowed[name] is not None and value not in (allowed[name] or ()))
    ]
    if wrong:
        raise ValueError(
            f"`{part}` must describe CLIP's own towers. Received: {', '.join(wrong)} in {source}. "
            "Another architecture is meant, or a newer form of it, which tf_clip does not have."
        )


def _take(fields: dict[str, Any], name: str, source: str) -> Any:
    if name not in fields:
        raise ValueError(
            f"`{name}` must be in {source}. Received: {', '.join(fields) or 'nothing'}. "
            "Pass the open_clip_config.json of a CLIP model."
        )
    return fields.pop(name)


def from_config(config: Mapping[str, Any], preprocessing: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns the `open_clip_config.json` of a Hugging Face `config.json`, both parsed.

    Raises:
        ValueError: a value has no counterpart in OpenCLIP.
    """
    text, vision = config["text_config"], config["vision_config"]
    is_resnet = vision["model_type"] == "clip_resnet_model"
    activations = {text["hidden_act"]} | (set() if is_resnet else {vision["hidden_act"]})
    if len(activations) > 1 or not activations <= {"quick_gelu", "gelu", "gelu_pytorch_tanh", "gelu_new"}:
        raise ValueError(
            "`hidden_act` must be quick_gelu, gelu or its tanh form, in both towers, for OpenCLIP. "
            f"Received: {sorted(activations)}. Save the model in Hugging Face's format."
        )
    if text["eos_token_id"] not in (2, text["vocab_size"] - 1):
        raise ValueError(
            "`eos_token_id` must be the highest id for OpenCLIP, which pools there. "
            f"Received: eos_token_id={text['eos_token_id']}, vocab_size={text['vocab_size']}. "
            "Save the model in Hugging Face's format."
        )
    (activation,) = activations
    model: dict[str, Any] = {"embed_dim": config["projection_dim"]}
    if activation == "quick_gelu":
        model["quick_gelu"] = True
    if config.get("logit_bias_init_value") is not None:
        model["init_logit_bias"] = config["logit_bias_init_value"]
    if is_resnet:
        model["vision_cfg"] = {
            "image_size": vision["image_size"],
            "layers": list(vision["depths"]),
            "width": vision["embedding_size"],
            "head_width": 32 * vision["embedding_size"] // vision["num_attention_heads"],
        }
    else:
        model["vision_cfg"] = {
            "image_size": vision["image_size"],
            "layers": vision["num_hidden_layers"],
            "width": vision["hidden_size"],
            "head_width": vision["hidden_size"] // vision["num_attention_heads"],
            "patch_size": vision["patch_size"],
            **_mlp_and_norms(vision, activation),
        }
    model["text_cfg"] = {
        "context_length": text["max_position_embeddings"],
        "vocab_size": text["vocab_size"],
        "width": text["hidden_size"],
        "heads": text["num_attention_heads"],
        "layers": text["num_hidden_layers"],
        **_mlp_and_norms(text, activation),
    }
    return {"model_cfg": model, "preprocess_cfg": dict(preprocessing or {"mean": OPENAI_MEAN, "std": OPENAI_STD})}


def _mlp_and_norms(tower: Mapping[str, Any], activation: str) -> dict[str, Any]:
    width, fields = tower["hidden_size"], {}
    if tower["intermediate_size"] != 4 * width:
        ratio = tower["intermediate_size"] / width
        # OpenCLIP multiplies and cuts: the quotient may fall just below the whole number.
        while int(width * ratio) < tower["intermediate_size"]:
            ratio += 1e-9
        fields["mlp_ratio"] = ratio
    if tower["layer_norm_eps"] != 1e-5:
        fields["norm_kwargs"] = {"eps": tower["layer_norm_eps"]}
    if activation in ("gelu_pytorch_tanh", "gelu_new"):
        fields["act_kwargs"] = {"approximate": "tanh"}
    return fields


def write(
    variables: Mapping[str, Variable],
    sources: Mapping[str, SourceTensor],
    config: Mapping[str, Any],
    preprocessing: Mapping[str, Any] | None,
    folder: str | Path,
    dtype: str = "float32",
) -> None:
    """Writes `open_clip_config.json` and `open_clip_model.safetensors`, which OpenCLIP loads.

    Args:
        variables: from path to variable, of a whole CLIP model.
        sources: from path to the variable's tensor.
        config: the parsed `config.json`.
        preprocessing: the parsed `preprocessor_config.json`; None writes OpenAI's mean and standard deviation.
        folder: where to; made when missing.
        dtype: one of `checkpoints.save.STORED_DTYPES`.

    Raises:
        ValueError: the configuration has a value that OpenCLIP has no field for.
    """
    described = from_config(config, None if preprocessing is None else from_preprocessor(preprocessing))
    arrays = save.arrays_of(variables, sources, dtype)
    with replacing_files(folder) as new:
        save.write_tensors(new / files.OPENCLIP_WEIGHTS[0], openai.from_hugging_face(arrays))
        save.write_json(new / files.OPENCLIP_CONFIG, described)


def to_preprocessor(described: Mapping[str, Any], config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Returns the `preprocessor_config.json` that an `open_clip_config.json` stands for.

    Args:
        described: the file, parsed.
        config: what `to_config` made of it.
        source: where it was found, for messages.

    Raises:
        ValueError: an image is to be prepared in a way that tf_clip does not have.
    """
    fields = dict(described.get("preprocess_cfg") or {})
    size = config["vision_config"]["image_size"]
    mode, interpolation = fields.get("resize_mode", "shortest"), fields.get("interpolation", "bicubic")
    if mode not in ("shortest", "squash") or interpolation not in _RESAMPLES:
        raise ValueError(
            "`preprocess_cfg` must resize by shortest or squash, bicubic or bilinear. Received: "
            f"resize_mode={mode!r}, interpolation={interpolation!r} in {source}. Prepare the images yourself."
        )
    square = {"height": size, "width": size}
    return {
        "image_processor_type": "CLIPImageProcessor",
        "size": square if mode == "squash" else {"shortest_edge": size},
        "resample": _RESAMPLES[interpolation],
        "crop_size": square,
        "image_mean": list(fields.get("mean") or OPENAI_MEAN),
        "image_std": list(fields.get("std") or OPENAI_STD),
    }


def read_preprocessor(described: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Returns the `preprocessor_config.json` that an `open_clip_config.json` stands for; see `to_preprocessor`."""
    return to_preprocessor(described, to_config(described, source), source)


def from_preprocessor(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the `preprocess_cfg` of a `preprocessor_config.json`, both parsed."""
    names = {number: name for name, number in _RESAMPLES.items()}
    return {
        "mean": values["image_mean"],
        "std": values["image_std"],
        "interpolation": names.get(values["resample"], "bicubic"),
        "resize_mode": "squash" if "height" in values["size"] else "shortest",
    }
