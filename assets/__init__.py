"""Dagster assets: read, call the core, write."""
