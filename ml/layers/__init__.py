"""Neural network layers, one idea per file."""
