"""How good a model is: zero-shot classification, retrieval, calibration, and what hangs on the wording."""
