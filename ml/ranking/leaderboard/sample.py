"""Bound an exam by its users, the same ones in every split, so that a leaderboard ends in hours."""

from collections.abc import Mapping

import numpy as np

from ml.features import SequenceData

_SEED = 20_261_128


def sample_users(splits: Mapping[str, SequenceData], *, most: int) -> dict[str, SequenceData]:
    """Return the sequences of at most so many users, drawn blind to what they did.

    Args:
        splits: Sequences of each split.
        most: Users kept at most; with fewer, everything is kept.

    Raises:
        ValueError: If none is to be kept.
    """
    if most < 1:
        raise ValueError(f"a leaderboard needs users; keep at least 1, not {most}")
    users = np.unique(np.concatenate([data.user for data in splits.values()]))
    if len(users) <= most:
        return dict(splits)
    kept = np.random.default_rng(_SEED).choice(users, most, replace=False)
    return {
        name: data.take(np.flatnonzero(np.isin(data.user, kept))) for name, data in splits.items()
    }
