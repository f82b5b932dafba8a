"""Models written as SavedModels once for all tests."""

from __future__ import annotations

import pytest

import tf_clip
from helpers.served_models import LABELS, TEMPLATES, signatures_of
from tf_clip import CLIPModel, CLIPProcessor


@pytest.fixture(scope="session")
def pictogram():
    """The shipped model and its processor."""
    return CLIPModel.from_pretrained("pictogram-clip"), CLIPProcessor.from_pretrained("pictogram-clip")


@pytest.fixture(scope="session")
def pictogram_folder(pictogram, tmp_path_factory):
    """The shipped model, written in float32 with labels."""
    base = tmp_path_factory.mktemp("pictogram")
    return tf_clip.export.saved_model(*pictogram, base, labels=LABELS, templates=TEMPLATES, top_k=3)


@pytest.fixture(scope="session")
def served(pictogram_folder):
    """Its signatures, loaded again."""
    return signatures_of(pictogram_folder)


@pytest.fixture(scope="session")
def small(tiny_config, tiny_processor):
    """A random model and its processor."""
    return CLIPModel(tiny_config), tiny_processor
