"""How fast a model is on this machine, and where the time goes."""
