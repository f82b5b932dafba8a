"""A family of its own: subclasses that state defaults, saved and read back, and the files that the ways enter."""

import json
from types import MappingProxyType

import numpy as np
import pytest

from helpers.image_files import noise, written
from helpers.reference_tokenizer import vocabulary_of
from helpers.ways import walked
from tf_clip import CLIPFeatureExtractorTF, CLIPProcessor
from tf_clip.preprocessing.images.image_processor import ImageProcessor
from tf_clip.preprocessing.processor import Processor
from tf_clip.preprocessing.text.tokenizer import BytePairTokenizer


class ToyTokenizer(BytePairTokenizer):
    defaults = MappingProxyType(
        {
            "model_max_length": 8,
            "bos_token": "<|startoftext|>",
            "eos_token": "<|endoftext|>",
            "pad_token": "!",
            "padding": "max_length",
            "model_input_names": ("input_ids",),
        }
    )


class ToyImageProcessor(ImageProcessor):
    defaults = MappingProxyType(
        {"size": {"height": 6, "width": 6}, "do_center_crop": False, "image_mean": 0.5, "image_std": 0.5}
    )


class ToyProcessor(Processor):
    tokenizer_class, image_processor_class = ToyTokenizer, ToyImageProcessor


@pytest.fixture(scope="module")
def toy():
    return ToyProcessor(ToyImageProcessor(), ToyTokenizer(vocabulary_of([]), []))


def test_the_defaults_of_a_family_are_those_of_its_calls(toy):
    image = noise((9, 12, 3))
    outputs = toy(text=["a", "a b"], images=image)
    assert {name: tuple(tensor.shape) for name, tensor in outputs.items()} == {
        "input_ids": (2, 8),
        "pixel_values": (1, 6, 6, 3),
    }
    assert outputs["input_ids"][0, -1] == toy.tokenizer.vocabulary.symbols["!"]
    assert toy(text=["a", "a b"], padding="longest")["input_ids"].shape == (2, 4)
    unit = toy.image_processor(image, do_normalize=False)["pixel_values"]
    np.testing.assert_allclose(outputs["pixel_values"], 2 * unit - 1, atol=1e-6)


def test_lists_hold_what_the_family_takes(toy):
    for padding in ("max_length", False):
        assert toy.tokenizer(["a"], padding, return_tensors=None).keys() == {"input_ids"}


@pytest.mark.parametrize("keep", [True, False], ids=["as saved", "files that say nothing"])
def test_the_defaults_of_a_family_are_saved_and_read(toy, tmp_path, keep):
    toy.save_pretrained(tmp_path)
    if not keep:
        (tmp_path / "tokenizer_config.json").unlink()
        (tmp_path / "preprocessor_config.json").write_text("{}", "utf-8")
    loaded = ToyProcessor.from_folder(tmp_path)
    assert vars(loaded.tokenizer.vocabulary) == vars(toy.tokenizer.vocabulary)
    assert loaded.image_processor.to_dict() == toy.image_processor.to_dict()


def test_options_that_differ_from_the_familys_are_saved_and_read(tmp_path):
    options = {"padding": "longest", "model_input_names": ["input_ids", "attention_mask"]}
    processor = ToyProcessor(
        ToyImageProcessor(image_mean=0.25), ToyTokenizer(vocabulary_of([]), [], padding_side="left", **options)
    )
    processor.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text("utf-8"))
    assert {name: config[name] for name in options} == options
    loaded = ToyProcessor.from_pretrained(tmp_path)
    assert loaded.image_processor.image_mean == (0.25, 0.25, 0.25)
    assert loaded.tokenizer(["a", "a b"])["attention_mask"].numpy().tolist() == [[0, 1, 1, 1], [1, 1, 1, 1]]


def test_clips_files_say_nothing_that_transformers_does_not_know(tiny_processor, tmp_path):
    tiny_processor.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text("utf-8"))
    assert not {"padding", "model_input_names"} & config.keys()
    assert (config["tokenizer_class"], config["model_max_length"]) == ("CLIPTokenizer", 16)


@pytest.mark.parametrize(("name", "value"), [("padding", "both"), ("model_input_names", ["ids"])])
def test_unknown_defaults_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"`{name}` must be one of .*Received: {name}="):
        ToyTokenizer(vocabulary_of([]), [], **{name: value})


def test_the_general_image_processor_has_no_size_of_its_own():
    with pytest.raises(ValueError, match="`size` must be a positive integer.*Received: size=None"):
        ImageProcessor()
    values = ImageProcessor(size=4)(np.full((5, 4, 3), 255, np.uint8))["pixel_values"]
    np.testing.assert_allclose(values, np.ones((1, 4, 4, 3)), atol=1e-6)


# The ways, as docs/architecture.md shows them: at most four files each, and none entered from two others.


@pytest.fixture
def fresh(tiny_processor):
    """Nothing of it is traced yet."""
    tokenizer = type(tiny_processor.tokenizer)(tiny_processor.tokenizer.vocabulary.symbols, [], model_max_length=16)
    return CLIPProcessor(CLIPFeatureExtractorTF(size=20, crop_size=20), tokenizer)


@pytest.mark.parametrize(
    ("step", "files"),
    [
        (
            lambda processor: processor.image_processor([written(noise((9, 12, 3)), "PNG")]),
            ["images/image_processor.py", "images/decode.py", "images/orientation.py", "images/resample.py"],
        ),
        (
            lambda processor: processor(images=[written(noise((9, 12, 3)), "PNG")]),
            ["processor.py", "images/opening.py", "images/image_processor.py", "images/resample.py"],
        ),
        (
            lambda processor: processor.tokenizer(["an owl", "a bus"]),
            ["text/tokenizer.py", "text/words.py", "text/normalization.py", "text/byte_pair_encoding.py"],
        ),
    ],
    ids=["image in a graph", "image", "string"],
)
def test_a_way_enters_each_of_its_files_once(fresh, step, files):
    way = walked(lambda: step(fresh))
    assert way.files == [f"preprocessing/{name}" for name in files]
    assert not way.come_back
