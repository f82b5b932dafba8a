"""The documented example of Hugging Face's CLIP page, with only the import and `return_tensors` changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from .conftest import Process
from .measuring import largest, report

EXAMPLE = """
from PIL import Image
from {package} import CLIPProcessor, CLIPModel

model = CLIPModel.from_pretrained({name!r})
processor = CLIPProcessor.from_pretrained({name!r})

image = Image.open({image!r})

inputs = processor(
    text=["a photo of a cat", "a photo of a dog"], images=image, return_tensors="{tensors}", padding=True
)

outputs = model(**inputs)
logits_per_image = outputs.logits_per_image  # this is the image-text similarity score
"""
# The softmax is PyTorch's method there; TensorFlow's tensors have no such methods.
SOFTMAX = {
    "pt": "probs = logits_per_image.softmax(dim=1)",
    "tf": "import tensorflow as tf\nprobs = tf.nn.softmax(logits_per_image, axis=1)",
}


def probabilities(package: str, tensors: str, name: Path, image: Path) -> np.ndarray:
    code = EXAMPLE.format(package=package, name=str(name), tensors=tensors, image=str(image)) + SOFTMAX[tensors]
    code += "\nimport sys\nassert ('torch' in sys.modules) == ('transformers' in sys.modules)"
    code += "\nprint('probs', *(float(p) for p in probs[0]))"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=environment)
    assert result.returncode == 0, result.stderr
    return np.array(result.stdout.split("probs")[1].split(), float)


def compare(label: str, bound: float, name: Path, image: Path) -> None:
    there = probabilities("transformers", "pt", name, image)
    here = probabilities("tf_clip", "tf", name, image)
    print(f"\n  {label}: {here}", end="")
    report(label, largest(here, there), bound)


@pytest.mark.real_size
@pytest.mark.parametrize("checkpoint", ["vit_b_32"], indirect=True)
def test_with_a_random_checkpoint(
    checkpoint: Path, vocabulary: Path, reference: Process, pytestconfig: pytest.Config
) -> None:
    reference("make_processor", checkpoint, vocabulary)
    image = pytestconfig.rootpath / "examples" / "images" / "owl.png"
    compare("documented example, random ViT-B/32, probabilities", 1e-5, checkpoint, image)


def test_with_the_shipped_checkpoint(pytestconfig: pytest.Config) -> None:
    name = pytestconfig.rootpath / "saved_models" / "pictogram-clip"
    image = pytestconfig.rootpath / "examples" / "images" / "owl.png"
    # Its weights are stored as float16, in which transformers computes too; here they become float32.
    compare("documented example, shipped checkpoint, probabilities", 5e-3, name, image)
