"""What people do with a CLIP model: embed, classify without training, retrieve."""
