"""Training: recipes, optimizer, resuming, callbacks, the linear probe."""
