"""A model and its preprocessing as one TensorFlow SavedModel."""
