"""Images and captions to the batches that `CLIPModel.fit` trains on.

`read_pairs` says which there are, in any of the usual files, and `ListedPairs` in two lists; `TrainingData` makes
batches of them, deterministic and from any batch on.
"""

from __future__ import annotations

from tf_clip.training.augmentation import Augmentation
from tf_clip.training.bad_rows import BadRow, TooManyBadRows
from tf_clip.training.pairs import ListedPairs, Pair, Pairs
from tf_clip.training.reading import FORMATS, read_pairs
from tf_clip.training.training_data import TrainingData

__all__ = [
    "FORMATS",
    "Augmentation",
    "BadRow",
    "ListedPairs",
    "Pair",
    "Pairs",
    "TooManyBadRows",
    "TrainingData",
    "read_pairs",
]
