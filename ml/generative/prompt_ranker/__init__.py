"""Sparse mixture-of-experts decoder that answers yes or no about one item."""
