"""Embedding tables with sparse gradients: their optimiser, their exchange and their files."""
