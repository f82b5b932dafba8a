"""Encoded images to pixel values."""
