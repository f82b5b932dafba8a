"""`CLIPModel`: CLIP's two towers, compared by cosine and softmax."""

from __future__ import annotations

import keras

from tf_clip.families.clip.config import CLIPConfig
from tf_clip.models.two_towers import TwoTowerModel


@keras.saving.register_keras_serializable(package="tf_clip")
class CLIPModel(TwoTowerModel):
    """Compares images and texts in one vector space, as `TwoTowerModel` says, from a `CLIPConfig`.

    Source: Radford et al. 2021; transformers' CLIPModel.
    """

    config_class = CLIPConfig
