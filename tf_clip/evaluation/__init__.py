"""How good a model is: zero-shot classification, retrieval, calibration, and what depends on the wording."""
