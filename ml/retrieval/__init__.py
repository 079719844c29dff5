"""Candidate retrieval: exact search, baselines and the dual encoder."""
