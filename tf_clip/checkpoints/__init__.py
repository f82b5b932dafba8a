"""Weights from files into variables and back; numpy only, no model in sight."""
