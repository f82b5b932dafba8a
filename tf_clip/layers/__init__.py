"""Small Keras layers on `keras.ops` only, from which both towers are built."""
