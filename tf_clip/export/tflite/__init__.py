"""A model and its preprocessing as .tflite files."""
