"""The AttnMVP ranker: attention whose values mix items with what was done to them."""
