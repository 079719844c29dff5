"""Scoring engine and expert balancing for sparse mixture-of-experts models."""
