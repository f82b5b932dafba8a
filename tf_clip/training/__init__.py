"""What `CLIPModel.fit` is fed with."""
