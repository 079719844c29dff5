"""The planted-truth generator behind the simulated feed: knobs, catalogue, users, posterior."""
