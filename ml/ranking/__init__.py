"""Models that score the impressions of a request, and their baselines."""
