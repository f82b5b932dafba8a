"""Families of models: a folder each, and the record that says what a family is."""
