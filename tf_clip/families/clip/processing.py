"""What turns images and strings into CLIP's inputs: the general classes with CLIP's defaults."""

from __future__ import annotations

from tf_clip.preprocessing.images.image_processor import ImageProcessor
from tf_clip.preprocessing.processor import Processor
from tf_clip.preprocessing.text.tokenizer import BytePairTokenizer


class CLIPTokenizer(BytePairTokenizer):
    """Turns strings into the ids that CLIP's text tower reads, as `BytePairTokenizer` says."""


class CLIPFeatureExtractorTF(ImageProcessor):
    """Turns images into what CLIP's image tower reads, as `ImageProcessor` says."""


class CLIPProcessor(Processor):
    """Wraps a `CLIPTokenizer` and a `CLIPFeatureExtractorTF`, as `Processor` says."""

    tokenizer_class = CLIPTokenizer
    image_processor_class = CLIPFeatureExtractorTF
