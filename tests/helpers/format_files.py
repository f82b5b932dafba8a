"""Writes a checkpoint of Hugging Face's names and layout as other libraries would, without them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import h5py
import msgpack
import numpy as np
from safetensors.numpy import save_file

from helpers.torch_files import Tensor, write_zip
from tf_clip.families.clip import openai, openclip

FLAX_ARRAY, FLAX_SCALAR = 1, 3


def cut(tensors: Any, parts: Any) -> Any:
    """Deals the tensors out to dicts."""
    names = list(tensors)
    return [{name: tensors[name] for name in names[part::parts]} for part in range(parts)]


def write_index(folder: Path, file: str, parts: Any, write: Any) -> None:
    """Writes parts and their index; `write` takes a path and tensors."""
    stem, suffix = file.rsplit(".", 1)
    weight_map = {}
    for number, part in enumerate(parts, start=1):
        name = f"{stem}-{number:05d}-of-{len(parts):05d}.{suffix}"
        write(folder / name, part)
        weight_map.update(dict.fromkeys(part, name))
    (folder / f"{file}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def write_torch(path: Path, tensors: Any) -> None:
    write_zip(path, {name: Tensor(str(number), array) for number, (name, array) in enumerate(tensors.items())})


def write_bin(folder: Path, tensors: Any, parts: Any = 1) -> None:
    if parts == 1:
        write_torch(folder / "pytorch_model.bin", tensors)
    else:
        write_index(folder, "pytorch_model.bin", cut(tensors, parts), write_torch)


def to_channels_last(name: str, array: Any, *, flax: Any) -> Any:
    """Returns the path and the array as transformers' TensorFlow and Flax models have them."""
    path = name.replace(".", "/")
    if path.endswith("token_embedding/weight") and not flax:
        return path, array
    if path.endswith(("token_embedding/weight", "position_embedding/weight")):
        return path.replace("/weight", "/embedding" if flax else "/embeddings"), array
    if "norm" in path or "layrnorm" in path:
        scale = "/scale" if flax else "/gamma"
        return path.replace("/weight", scale).replace("/bias", "/bias" if flax else "/beta"), array
    if path.endswith("/weight"):
        axes = (2, 3, 1, 0) if array.ndim == 4 else (1, 0)
        return path.replace("/weight", "/kernel"), np.array(array.transpose(axes), order="C")
    return path, array


def to_tensorflow(tensors: Any) -> Any:
    """Returns the names below the model: its layers are called `layers_._0`, its variables end in `:0`."""
    result = {}
    for name, array in tensors.items():
        path, array = to_channels_last(name, array, flax=False)
        result[re.sub(r"/layers/(\d+)/", r"/layers_._\1/", path) + ":0"] = array
    return result


def write_h5(path: Path, arrays: Any, groups: Any) -> None:
    """Writes groups and root attributes as Keras 2's `save_weights` and transformers do."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array([group.encode() for group in groups])
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = b"2.15.0"
        for group in groups:
            file.create_group(group).attrs["weight_names"] = np.array([name.encode() for name in arrays])
        for name, array in arrays.items():
            file[name] = array


def write_tf_h5(folder: Path, tensors: Any, parts: Any = 1) -> None:
    """A whole file has the Keras model's name twice, as in `clip/tfclip_model/clip/...`; a part has it once."""
    arrays = to_tensorflow(tensors)
    if parts == 1:
        named = {f"clip/tfclip_model/clip/{name}": array for name, array in arrays.items()}
        write_h5(folder / "tf_model.h5", named, ["clip"])
    else:
        named = {f"tfclip_model/clip/{name}": array for name, array in arrays.items()}
        write_index(folder, "tf_model.h5", cut(named, parts), lambda path, part: write_h5(path, part, []))


def write_tf_safetensors(folder: Path, tensors: Any) -> None:
    arrays = {f"tfclip_model/clip/{name}": array for name, array in to_tensorflow(tensors).items()}
    save_file(arrays, folder / "model.safetensors", metadata={"format": "tf"})


def flax_extension(array: Any, kind: int = FLAX_ARRAY) -> Any:
    """Returns an array as Flax's `_msgpack_ext_pack` does."""
    return msgpack.ExtType(kind, msgpack.packb((array.shape, array.dtype.name, array.tobytes()), use_bin_type=True))


def flax_chunks(array: Any, size: int) -> Any:
    """Returns an array as Flax's `_chunk` does above a gigabyte; here above `size` elements."""
    flat = array.reshape(-1)
    chunks = [flax_extension(flat[start : start + size]) for start in range(0, flat.size, size)]
    return {
        "__msgpack_chunked_array__": True,
        "shape": {str(axis): length for axis, length in enumerate(array.shape)},
        "chunks": {str(number): chunk for number, chunk in enumerate(chunks)},
    }


def flax_tree(arrays: Any) -> Any:
    """Nests `a/b/c` into dicts."""
    tree: dict[str, Any] = {}
    for path, array in arrays.items():
        *groups, leaf = path.split("/")
        place = tree
        for group in groups:
            place = place.setdefault(group, {})
        place[leaf] = array
    return tree


def write_flax(folder: Path, tensors: Any, chunk: Any = None) -> None:
    """Arrays of more than `chunk` elements are cut up."""
    leaves = {}
    for name, array in tensors.items():
        path, array = to_channels_last(name, array, flax=True)
        is_cut = chunk is not None and array.size > chunk
        leaves[path] = flax_chunks(array, chunk) if is_cut else flax_extension(array)
    (folder / "flax_model.msgpack").write_bytes(msgpack.packb(flax_tree(leaves), use_bin_type=True))


def write_openai_names(path: Path, tensors: Any) -> None:
    """Writes OpenAI's `.pt` as a dict of tensors, with the three numbers that only OpenAI's files carry."""
    arrays = openai.from_hugging_face(tensors)
    numbers = {"input_resolution": 20, "context_length": 16, "vocab_size": 514}
    write_torch(path, {**arrays, **{name: np.array(number, "int64") for name, number in numbers.items()}})


def write_openclip(
    folder: Path, tensors: Any, config: Any, file: str = "open_clip_model.safetensors", custom_text: Any = False
) -> None:
    """`custom_text` puts the text tower under `text.`, as OpenCLIP's CustomTextCLIP does."""
    arrays = openai.from_hugging_face(tensors)
    if custom_text:
        outside = ("visual.", "logit_")
        arrays = {name if name.startswith(outside) else f"text.{name}": array for name, array in arrays.items()}
    if file.endswith(".safetensors"):
        save_file(arrays, folder / file, metadata={"format": "pt"})
    else:
        write_torch(folder / file, arrays)
    (folder / "open_clip_config.json").write_text(json.dumps(openclip.from_config(config.to_dict())))


_KERAS_HUB = {
    "logit_scale": "layers/clip_head/vars/0",
    "visual_projection.weight": "layers/dense/vars/0",
    "text_projection.weight": "layers/dense_1/vars/0",
    "text_model.embeddings.token_embedding.weight": "text/token_and_position_embedding/token_embedding/vars/0",
    "text_model.embeddings.position_embedding.weight": "text/token_and_position_embedding/position_embedding/vars/0",
    "text_model.final_layer_norm": "text/layer_normalization",
    "vision_model.embeddings.class_embedding": "vision/clip_vision_embedding/vars/0",
    "vision_model.embeddings.patch_embedding.weight": "vision/clip_vision_embedding/patch_embedding/vars/0",
    "vision_model.embeddings.position_embedding.weight": "vision/clip_vision_embedding/position_embedding/vars/0",
    "vision_model.pre_layrnorm": "vision/layer_normalization",
    "vision_model.post_layernorm": "vision/layer_normalization_1",
}
_KERAS_HUB_BLOCK = {
    "self_attn.q_proj": "attention/query_dense",
    "self_attn.k_proj": "attention/key_dense",
    "self_attn.v_proj": "attention/value_dense",
    "self_attn.out_proj": "attention/output_dense",
    "layer_norm1": "layer_norm_1",
    "layer_norm2": "layer_norm_2",
    "mlp.fc1": "dense_1",
    "mlp.fc2": "dense_2",
}


def _to_keras_hub(name: str, array: Any, heads: Any) -> Any:
    block = re.match(r"(text|vision)_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)$", name)
    if block is None:
        layer, _, kind = name.rpartition(".")
        path = _KERAS_HUB.get(name) or f"{_KERAS_HUB[layer]}/vars/{int(kind == 'bias')}"
        if array.ndim == 4:
            array = array.transpose(2, 3, 1, 0)
        elif "projection" in name:
            array = array.T
    else:
        side, number, layer, kind = block.groups()
        number = "" if number == "0" else f"_{number}"
        path = f"{side}/clip_encoder_layer{number}/{_KERAS_HUB_BLOCK[layer]}/vars/{int(kind == 'bias')}"
        array = array.T
        if layer == "self_attn.out_proj" and kind == "weight":  # [heads, width, out]
            array = array.reshape(heads[side], -1, array.shape[1])
        elif layer.startswith("self_attn.") and layer != "self_attn.out_proj":  # [in, heads, width], [heads, width]
            array = array.reshape(*array.shape[:-1], heads[side], -1)
    return re.sub(r"^(text|vision)/", r"layers/clip_\1_encoder/layers/", path), array


def write_keras_hub(folder: Path, tensors: Any, config: Any) -> None:
    """Writes what `save_to_preset` does of a backbone: `config.json` and `model.weights.h5`."""
    text, vision = config.text_config, config.vision_config
    heads = {"text": text.num_attention_heads, "vision": vision.num_attention_heads}
    with h5py.File(folder / "model.weights.h5", "w") as file:
        for name, array in tensors.items():
            path, array = _to_keras_hub(name, array, heads)
            file[path] = array
        embedding = "layers/clip_vision_encoder/layers/clip_vision_embedding"
        file[f"{embedding}/vars/1"] = np.arange(vision.num_patches + 1, dtype="int32")[None]

    def encoder(tower: Any, **more: Any) -> Any:
        shared = {
            "hidden_dim": tower.hidden_size,
            "intermediate_dim": tower.intermediate_size,
            "num_layers": tower.num_hidden_layers,
            "num_heads": tower.num_attention_heads,
            "intermediate_activation": tower.hidden_act,
        }
        return {"module": "keras_hub", "config": {**shared, **more}}

    size = vision.image_size
    backbone = {
        "vision_encoder": encoder(vision, patch_size=vision.patch_size, image_shape=[size, size, 3]),
        "text_encoder": encoder(
            text,
            embedding_dim=text.hidden_size,
            vocabulary_size=text.vocab_size,
            max_sequence_length=text.max_position_embeddings,
        ),
        "projection_dim": config.projection_dim,
    }
    described = {"module": "keras_hub.src.models.clip.clip_backbone", "class_name": "CLIPBackbone", "config": backbone}
    (folder / "config.json").write_text(json.dumps(described))
