"""What the HDF5 reader must not read: texts, which in a damaged file HDF5 may search for without end."""

import h5py
import ml_dtypes
import numpy as np

from tf_clip.checkpoints.readers.hdf5 import read_hdf5_file


def test_no_attribute_is_read(tmp_path, monkeypatch):
    values = np.array([1.5, -2.0], ml_dtypes.bfloat16)
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file["a"] = values.view("V2")
        file["a"].attrs["dtype"] = "bfloat16"

    def refuse(*_):
        raise AssertionError("an attribute was read")

    monkeypatch.setattr(h5py.AttributeManager, "__getitem__", refuse)
    monkeypatch.setattr(h5py.AttributeManager, "get", refuse)
    tensor = read_hdf5_file(tmp_path / "model.h5")["a"]
    assert tensor.dtype == "bfloat16"
    np.testing.assert_array_equal(tensor.load(), values)
