"""What the tests of the page share: the page laid out with the shipped model, and a browser."""

from __future__ import annotations

import pytest

from helpers.browser import browser
from helpers.needs import refuse_without
from helpers.web_page import NODE_MODULES, WebPage, lay_out, served, with_model


def pytest_configure():
    refuse_without(
        "tests/web",
        "make web-test",
        modules=("selenium",),
        programs=("chromium", "chromedriver"),
        folders={"@litertjs/core": NODE_MODULES},
    )


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """The page as its README lays it out."""
    return lay_out(tmp_path_factory.mktemp("web"))


@pytest.fixture(scope="session")
def float32_folder(folder, tmp_path_factory):
    """The same page with the model in float32, whose answers are the model's own."""
    return with_model(folder, tmp_path_factory.mktemp("float32"))


@pytest.fixture(scope="session")
def url(folder):
    with served(folder) as url:
        yield url


@pytest.fixture(scope="session")
def chrome(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as chrome:
        yield chrome


@pytest.fixture
def page(chrome, url):
    return WebPage(chrome, url)


@pytest.fixture(scope="session")
def cosines():
    """Computes the cosines of images and a sentence with the Keras model."""
    from tf_clip import CLIPModel, CLIPProcessor, embed_images, embed_texts

    model, processor = CLIPModel.from_pretrained("pictogram-clip"), CLIPProcessor.from_pretrained("pictogram-clip")

    def cosines(paths, sentence):
        images = embed_images(model, processor, [str(path) for path in paths]).embeds
        return images @ embed_texts(model, processor, [sentence])[0]

    return cosines
