"""Small modules that adapt a model while its own weights stay as they are."""
