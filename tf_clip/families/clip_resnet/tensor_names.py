"""The names of Hugging Face's files for the ResNet's variables: OpenAI's, below `vision_model`."""

from __future__ import annotations

from tf_clip.families.clip.tensor_names import CONVOLUTION, LEAVES, ROOTS
from tf_clip.families.tensor_names import TensorNames

TENSOR_NAMES = TensorNames(
    leaves=(
        (r"(conv\d|downsample_conv)/kernel$", r"\1/weight", CONVOLUTION),
        *LEAVES,
        (r"/moving_mean$", "/running_mean", None),
        (r"/moving_variance$", "/running_var", None),
    ),
    renames=(
        *ROOTS,
        (r"/stem/", "/"),
        (r"/stage(\d+)_(\d+)/", r"/layer\1/\2/"),
        (r"/downsample_conv/", "/downsample/0/"),
        (r"/downsample_bn/", "/downsample/1/"),
        (r"/attention_pool/", "/attnpool/"),
    ),
)
