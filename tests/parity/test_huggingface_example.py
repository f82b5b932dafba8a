"""The documented example of Hugging Face's CLIP page, with only the import and `return_tensors` changed."""

import subprocess
import sys
import textwrap

import numpy as np

from tests.parity.conftest import report

EXAMPLE = """
from PIL import Image
from {package} import CLIPProcessor, CLIPModel

model = CLIPModel.from_pretrained({name!r})
processor = CLIPProcessor.from_pretrained({name!r})

image = Image.open({picture!r})

inputs = processor(text=["owl", "bicycle"], images=image, return_tensors="{tensors}", padding=True)

outputs = model(**inputs)
logits_per_image = outputs.logits_per_image  # this is the image-text similarity score
"""
SOFTMAX = {
    "pt": "probs = logits_per_image.softmax(dim=1)",
    "tf": "import tensorflow as tf; probs = tf.nn.softmax(logits_per_image, axis=1)",
}


def probabilities(package, tensors, name, picture):
    code = EXAMPLE.format(package=package, name=str(name), tensors=tensors, picture=str(picture)) + SOFTMAX[tensors]
    code = textwrap.dedent(code) + "\nprint('probs', *(float(p) for p in probs[0]))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return np.array(result.stdout.split("probs")[1].split(), float)


def test_the_same_example_gives_the_same_answer(pytestconfig):
    root = pytestconfig.rootpath
    arguments = (root / "saved_models" / "pictogram-clip", root / "examples" / "pictures" / "owl.png")
    theirs = probabilities("transformers", "pt", *arguments)
    ours = probabilities("tf_clip", "tf", *arguments)
    # The file holds float16 weights, which transformers keeps as they are.
    report("probabilities of the example", float(np.abs(ours - theirs).max()), 5e-3)
    assert ours.argmax() == theirs.argmax()
