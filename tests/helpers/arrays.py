"""Tensors of any backend as numpy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops


def array(tensor: Any) -> np.ndarray:
    """Returns the tensor's values, half precision as float32; PyTorch's need more than numpy does."""
    tensor = ops.convert_to_tensor(tensor)
    values = ops.convert_to_numpy(ops.cast(tensor, "float32") if "float" in str(tensor.dtype) else tensor)
    return np.asarray(values)


def assert_close(ours: Any, theirs: Any, **tolerances: Any) -> None:
    """Compares tensors of any backend, as `numpy.testing.assert_allclose` does; shapes must be equal."""
    ours, theirs = array(ours), array(theirs)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, **tolerances)


def assert_same(ours: Any, theirs: Any) -> None:
    """Compares tensors of any backend bit for bit."""
    np.testing.assert_array_equal(array(ours), array(theirs), strict=True)
