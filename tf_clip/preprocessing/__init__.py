"""Bytes, images and strings into what the towers read, inside the TensorFlow graph."""
