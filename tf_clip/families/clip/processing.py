"""What turns images and strings into CLIP's inputs: the general classes with CLIP's defaults."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

from tf_clip.checkpoints.files import OPENCLIP_CONFIG, read_json
from tf_clip.families.clip import openclip
from tf_clip.families.clip.openclip import OPENAI_MEAN, OPENAI_STD
from tf_clip.preprocessing.images.image_options import BICUBIC, ImageArguments, picked
from tf_clip.preprocessing.images.image_processor import ImageProcessor
from tf_clip.preprocessing.processor import Processor
from tf_clip.preprocessing.text.tokenizer import BytePairTokenizer


class CLIPTokenizer(BytePairTokenizer):
    """Turns strings into the ids that CLIP's text tower reads, as `BytePairTokenizer` says.

    Texts start with `<|startoftext|>`, end with `<|endoftext|>` and take at most 77 tokens, unless arguments or files
    say otherwise.
    """

    defaults = MappingProxyType(
        {
            "model_max_length": 77,
            "bos_token": "<|startoftext|>",
            "eos_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>",
        }
    )
    hugging_face_class = "CLIPTokenizer"


class CLIPFeatureExtractorTF(ImageProcessor):
    """Turns images into what CLIP's image tower reads, as `ImageProcessor` says.

    Images are 224 pixels high and wide, bicubic, and have OpenAI's mean and standard deviation, unless arguments or
    files say otherwise. OpenCLIP's files are read, too.
    """

    defaults = MappingProxyType(
        {"size": 224, "resample": BICUBIC, "crop_size": 224, "image_mean": OPENAI_MEAN, "image_std": OPENAI_STD}
    )
    config_files = (*ImageProcessor.config_files, OPENCLIP_CONFIG)
    hugging_face_class = "CLIPImageProcessor"

    @classmethod
    def _read(cls, folder: Path) -> ImageArguments | None:
        path = folder / OPENCLIP_CONFIG
        options = super()._read(folder)
        if options is not None or not path.is_file():
            return options
        return picked(openclip.read_preprocessor(read_json(path), str(path)))


class CLIPProcessor(Processor):
    """Wraps a `CLIPTokenizer` and a `CLIPFeatureExtractorTF`, as `Processor` says."""

    tokenizer_class = CLIPTokenizer
    image_processor_class = CLIPFeatureExtractorTF
