"""Measurements of trained models that are not a single number."""
