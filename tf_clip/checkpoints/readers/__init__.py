"""Files of weights to tensors that are read when they are needed, one file format a module."""
