"""Writes what all libraries read: one random model in several layouts, images, captions.

python inputs.py model SIZE FOLDER    in an environment with tf_clip
python inputs.py onnx SIZE FOLDER     in one with torch and transformers, after it
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
IMAGES, HEIGHT, WIDTH = 32, 480, 640
_TINY = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 2}
CONFIGS = {
    "ViT-B/32": {"text_config": {}, "vision_config": {}},
    "ViT-L/14": {
        "projection_dim": 768,
        "text_config": {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_attention_heads": 12,
            "projection_dim": 768,
        },
        "vision_config": {
            **{"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16},
            **{"patch_size": 14, "projection_dim": 768},
        },
    },
    "tiny": {
        "projection_dim": 32,
        "text_config": {**_TINY, "projection_dim": 32},
        "vision_config": {**_TINY, "image_size": 32, "patch_size": 16, "projection_dim": 32},
    },
}
"""By the names that `--model` takes; all have CLIP's own vocabulary."""


def config_of(size: str):
    """Returns the model's configuration."""
    from tf_clip.families.clip.config import CLIPConfig

    described = CONFIGS[size]
    text = {"bos_token_id": 49406, "eos_token_id": 49407, **described["text_config"]}
    return CLIPConfig.from_dict({**described, "text_config": text})


def write_model(size: str, folder: Path) -> None:
    """Writes the weights in Hugging Face's and OpenCLIP's layouts, and the inputs."""
    import keras
    import tensorflow as tf

    from tf_clip import CLIPFeatureExtractorTF, CLIPModel, CLIPProcessor
    from tf_clip.models.pretrained import write_openclip

    sys.path.insert(0, str(HERE.parent))
    from preprocessing_inputs import as_jpeg, tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    config = config_of(size)
    model = CLIPModel(config)
    generator = np.random.default_rng(0)
    for variable in model.weights:
        # Fresh norms and biases are ones and zeros, which would hide a forgotten one.
        if "seed_generator" not in variable.path and not variable.path.endswith("logit_scale"):
            variable.assign_add(0.005 * generator.normal(size=variable.shape).astype(np.float32))
    side = config.vision_config.image_size
    processor = CLIPProcessor(CLIPFeatureExtractorTF(size=side, crop_size=side), tokenizer())
    model.save_pretrained(folder / "weights")
    processor.save_pretrained(folder / "weights")
    write_openclip(model, folder / "openclip")

    (folder / "images").mkdir(exist_ok=True)
    data = []
    for index in range(IMAGES):
        rough = generator.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
        smooth = tf.image.resize(rough, (HEIGHT, WIDTH), "bicubic").numpy()
        data.append(as_jpeg(np.clip(smooth, 0, 255).astype(np.uint8)))
        (folder / "images" / f"{index}.jpg").write_bytes(data[-1])
    captions = (HERE / "captions.txt").read_text("utf-8")
    (folder / "captions.txt").write_text(captions, "utf-8")
    tokens = processor.tokenizer(captions.splitlines())
    class_embeds = generator.normal(size=(1000, config.projection_dim)).astype(np.float32)
    np.savez(
        folder / "inputs.npz",
        pixel_values=processor.image_processor(tf.constant(data))["pixel_values"].numpy(),
        input_ids=tokens["input_ids"].numpy(),
        attention_mask=tokens["attention_mask"].numpy(),
        class_embeds=class_embeds / np.linalg.norm(class_embeds, axis=1, keepdims=True),
    )


def write_onnx(size: str, folder: Path) -> None:
    """Writes a file for each encoder, for any number of rows and any length."""
    import torch
    from library import Inputs
    from transformers import CLIPTextModelWithProjection, CLIPVisionModelWithProjection

    class Images(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = CLIPVisionModelWithProjection.from_pretrained(folder / "weights").eval()

        def forward(self, pixel_values):
            return self.model(pixel_values).image_embeds

    class Texts(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = CLIPTextModelWithProjection.from_pretrained(folder / "weights").eval()

        def forward(self, input_ids):
            # Padding comes after the end and attention is causal: without a mask, the features are the same.
            return self.model(input_ids).text_embeds

    inputs = Inputs(folder)
    (folder / "onnx").mkdir(exist_ok=True)
    pixels = torch.from_numpy(inputs.pixels(2, channels_first=True))
    ids = torch.from_numpy(inputs.tokens(2)["input_ids"]).long()
    batch, length = torch.export.Dim("batch", min=1, max=4096), torch.export.Dim("length", min=2, max=77)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module, value, name, shapes in (
            (Images(), pixels, "pixel_values", {0: batch}),
            (Texts(), ids, "input_ids", {0: batch, 1: length}),
        ):
            torch.onnx.export(
                module,
                (value,),
                folder / "onnx" / f"{name}.onnx",
                input_names=[name],
                dynamic_shapes=({**shapes},),
                dynamo=True,
                verbose=False,
            )


if __name__ == "__main__":
    {"model": write_model, "onnx": write_onnx}[sys.argv[1]](sys.argv[2], Path(sys.argv[3]))
