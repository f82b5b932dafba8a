"""A model and its preprocessing as files that other programs run."""
