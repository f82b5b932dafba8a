"""Where random numbers of tests begin."""

from __future__ import annotations

import random

import numpy as np


def seed(value: int = 0) -> None:
    """Begins Python's and NumPy's generators anew; Keras draws its initial values' seeds from the first.

    Not `keras.utils.set_random_seed`: that makes TensorFlow forget every function that it has prepared, and the next
    call of a tokenizer or an image processor takes a second or more again.
    """
    random.seed(value)
    np.random.seed(value)
