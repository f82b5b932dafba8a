"""Images and captions in files to the batches that a model is trained and evaluated on."""
