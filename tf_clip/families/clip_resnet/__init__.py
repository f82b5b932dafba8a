"""CLIP with a ResNet as its image tower: OpenAI's RN50 to RN50x64.

Its text tower, its model and its processor are CLIP's.
"""

from __future__ import annotations

from tf_clip.families.clip.layouts import HUGGING_FACE
from tf_clip.families.clip_resnet.config import CLIPResNetConfig
from tf_clip.families.clip_resnet.cost import COST
from tf_clip.families.clip_resnet.tensor_names import TENSOR_NAMES
from tf_clip.families.family import Family

_IMAGE_TOWER = "tf_clip.families.clip_resnet.image_tower:CLIPResNetImageEncoder"

FAMILY = Family(
    name="CLIP's ResNet",
    image_config=CLIPResNetConfig,
    image_tower=_IMAGE_TOWER,
    class_of=lambda model_type, names: _IMAGE_TOWER,
    tensor_names=TENSOR_NAMES,
    layouts=(HUGGING_FACE,),
    cost=COST,
)
"""What CLIP's ResNet is; see `Family`."""
