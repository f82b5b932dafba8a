"""Comparison with transformers and PyTorch: the same files, the same numbers. `make parity` runs it."""
