"""Small modules that adapt a model while its own weights stay as they are.

Every model has `add_adapter`, `train_adapter` and `merge_adapter`, and in `model.adapters` the rest; here is what they
take.
"""

from tf_clip.adapters.composition import Average, BatchSplit, Fuse, Parallel, Split, Stack, Switch
from tf_clip.adapters.config import (
    BottleneckConfig,
    ConfigUnion,
    FusionConfig,
    LoRAConfig,
    PrefixTuningConfig,
    PromptTuningConfig,
    ReftConfig,
)
from tf_clip.adapters.named_configs import CONFIGS
from tf_clip.adapters.scores import adapter_scores
from tf_clip.adapters.setup import AdapterSetup

__all__ = [
    "CONFIGS",
    "AdapterSetup",
    "Average",
    "BatchSplit",
    "BottleneckConfig",
    "ConfigUnion",
    "Fuse",
    "FusionConfig",
    "LoRAConfig",
    "Parallel",
    "PrefixTuningConfig",
    "PromptTuningConfig",
    "ReftConfig",
    "Split",
    "Stack",
    "Switch",
    "adapter_scores",
]
