"""The same random ViT-B/32 for every engine of the benchmark of mobile files.

python litert_files.py model FOLDER    writes weights, .tflite files and inputs; needs tf_clip[litert]
python litert_files.py onnx FOLDER     writes ONNX files of the weights; needs torch and transformers
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np

CAPTION = "two dogs are running along the beach in the evening sun"
TEXT_LENGTH = 16
"""The shortest length of the files that holds the caption; the other engines take it without padding."""
RECIPES = ("float32", "float16", "dynamic_int8", "int4")


def write_model(folder: Path) -> None:
    """Writes the weights in Hugging Face's layout, each recipe's files, and one image and caption as inputs."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    import keras

    import tf_clip
    from helpers.serving.models import vit_b_32

    keras.utils.set_random_seed(0)
    model, processor = vit_b_32()
    model.save_pretrained(folder / "weights")
    image = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    np.savez(
        folder / "inputs.npz",
        image_pixels=image[np.newaxis],
        pixel_values=processor(images=image)["pixel_values"],  # channels last
        input_ids=np.array([processor.tokenizer.encode(CAPTION)], np.int32),
    )
    for recipe in RECIPES:
        print(f"{recipe}...", file=sys.stderr, flush=True)
        options = {"parts": ["image", "text"], "text_lengths": [TEXT_LENGTH]}
        tf_clip.export.litert(model, processor, folder / recipe, quantization=recipe, overwrite=True, **options)


def read_inputs(folder: Path) -> dict[str, np.ndarray]:
    """Reads the inputs; `pixel_values` is as TensorFlow has it, `channels_first` as the others."""
    inputs = dict(np.load(folder / "inputs.npz"))
    channels_first = np.ascontiguousarray(inputs["pixel_values"].transpose(0, 3, 1, 2))
    return {**inputs, "channels_first": channels_first}


def torch_towers(folder: Path):
    """Returns the two towers of transformers, from inputs to embeddings of unit length."""
    import torch
    from transformers import CLIPModel

    class Tower(torch.nn.Module):
        def __init__(self, encoder, projection):
            super().__init__()
            self.encoder, self.projection = encoder, projection

        def forward(self, inputs):
            embeds = self.projection(self.encoder(inputs).pooler_output)
            return embeds / embeds.norm(dim=-1, keepdim=True)

    model = CLIPModel.from_pretrained(folder / "weights").eval()
    return Tower(model.vision_model, model.visual_projection), Tower(model.text_model, model.text_projection)


def write_onnx(folder: Path) -> None:
    """Writes one file a tower, for inputs of the benchmark's shape."""
    import torch

    inputs = read_inputs(folder)
    images, texts = torch_towers(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for tower, value, name in (
            (images, torch.from_numpy(inputs["channels_first"]), "image"),
            (texts, torch.from_numpy(inputs["input_ids"]).long(), "text"),
        ):
            torch.onnx.export(
                tower, (value,), folder / f"{name}.onnx", input_names=["inputs"], dynamo=True, verbose=False
            )


if __name__ == "__main__":
    {"model": write_model, "onnx": write_onnx}[sys.argv[1]](Path(sys.argv[2]))
