"""The leaderboard of rankers: fair cells, a ledger that is never repeated, one table."""
