"""Models written as .tflite files once for all tests."""

from __future__ import annotations

import pytest

import tf_clip
from helpers.lite_files import LABELS, TEMPLATES
from helpers.seeds import seed
from tf_clip import CLIPModel, CLIPProcessor
from tf_clip.export import LiteRTModel


@pytest.fixture(autouse=True)
def seeded():
    """Leaves TensorFlow's seed alone: setting it makes each traced function start anew."""


@pytest.fixture(scope="session")
def small(tiny_config, tiny_processor):
    """A random model, the same in every run, and its processor."""
    # Not every one: untrained and this narrow, two of the first nine seeds' (0 and 5) answer some text so differently
    # when rounded to four bits that the export rightly refuses them (cosine below 0.9; the others' are above 0.94).
    seed(2)
    return CLIPModel(tiny_config), tiny_processor


@pytest.fixture(scope="session")
def small_files(small, tmp_path_factory):
    """Its files, in float32."""
    out = tmp_path_factory.mktemp("small") / "mobile"
    return tf_clip.export.litert(*small, out, labels=LABELS, templates=TEMPLATES, text_lengths=[5], name="small")


@pytest.fixture(scope="session")
def small_runtime(small_files):
    return LiteRTModel(small_files["image"].parent)


@pytest.fixture(scope="session")
def pictogram():
    """The shipped model and its processor."""
    return CLIPModel.from_pretrained("pictogram-clip"), CLIPProcessor.from_pretrained("pictogram-clip")
