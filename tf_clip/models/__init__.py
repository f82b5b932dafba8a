"""The towers and the joint model."""
