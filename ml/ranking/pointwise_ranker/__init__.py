"""Point-wise rankers: one example is one shown item, its context and its user's recent events."""
