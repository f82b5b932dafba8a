"""`CLIPForImageClassification`: CLIP's image tower with a linear classifier on top."""

from __future__ import annotations

import keras

from tf_clip.families.clip.config import CLIPConfig
from tf_clip.models.image_classification import ImageClassificationModel


@keras.saving.register_keras_serializable(package="tf_clip")
class CLIPForImageClassification(ImageClassificationModel):
    """Tells classes of images apart, as `ImageClassificationModel` says, from a `CLIPConfig`.

    Source: transformers' CLIPForImageClassification.
    """

    config_class = CLIPConfig
