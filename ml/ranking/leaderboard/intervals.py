"""Intervals that cover users and seeds: both are drawn anew, pairs stay pairs.

Rows of one user are not independent, users are; and a fit with another seed is another model. Each
draw takes users with replacement and, for each recipe apart, seeds with replacement.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from ml.bootstrap import DEFAULT, BootstrapConfig
from ml.features import FloatArray, IntArray
from ml.metrics import cross_entropies

# Shapes: T target events, U users, S seeds, R draws, Q summed quantities.
_DRAWS_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """Hold an estimate over seeds with its interval.

    Attributes:
        value: The mean over the seeds, on all users.
        low: Lower end.
        high: Upper end.
        p: Two-sided p-value of "it is zero", from the bootstrap's standard error.
    """

    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Judged:
    """Hold the test split's target events of one action.

    Attributes:
        users: User of each row, [T].
        labels: 0 or 1, [T].
    """

    users: IntArray
    labels: IntArray

    def losses(self, predictions: Sequence[FloatArray]) -> FloatArray:
        """Return the cross-entropy of each row for each seed's predictions, [T, S]."""
        return np.stack([cross_entropies(self.labels, p) for p in predictions], axis=1)


def entropy(rows: Judged, losses_TS: FloatArray, *, config: BootstrapConfig = DEFAULT) -> Estimate:
    """Return the normalised entropy of a recipe."""
    return _estimate(rows, [losses_TS], lambda sums: sums[:, 2] / _entropies(sums), config=config)


def entropy_difference(
    rows: Judged,
    losses_TS: FloatArray,
    others_TS: FloatArray,
    *,
    config: BootstrapConfig = DEFAULT,
) -> Estimate:
    """Return NE of a recipe minus NE of another; below zero the first is better."""
    return _estimate(
        rows,
        [losses_TS, others_TS],
        lambda sums: (sums[:, 2] - sums[:, 3]) / _entropies(sums),
        config=config,
    )


def closed_fraction(
    rows: Judged,
    losses_TS: FloatArray,
    reachable_TS: FloatArray,
    *,
    config: BootstrapConfig = DEFAULT,
) -> Estimate:
    """Return (1 - NE) / (1 - NE of the reachable reference): the share of the way gone."""

    def closed(sums: FloatArray) -> FloatArray:
        base = _entropies(sums)
        return (base - sums[:, 2]) / (base - sums[:, 3])

    return _estimate(rows, [losses_TS, reachable_TS], closed, config=config)


def _entropies(sums_RQ: FloatArray) -> FloatArray:
    """Return rows times the entropy of the base rate, of (rows, positives, ...)."""
    count, positives = sums_RQ[:, 0], sums_RQ[:, 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = positives / count
        return -(positives * np.log(rate) + (count - positives) * np.log1p(-rate))


def _estimate(
    rows: Judged, losses: list[FloatArray], statistic, *, config: BootstrapConfig
) -> Estimate:
    """Draw users and seeds; the statistic is of (rows, positives, one summed loss per recipe)."""
    names, user = np.unique(rows.users, return_inverse=True)
    counts_UQ = _by_user(user, np.stack([np.ones(len(user)), rows.labels.astype(float)], axis=1))
    losses_US = [_by_user(user, each) for each in losses]
    generator = np.random.default_rng(config.seed)
    drawn = []
    for first in range(0, config.draws, _DRAWS_AT_ONCE):
        count = min(_DRAWS_AT_ONCE, config.draws - first)
        weights_RU = _draws(generator, count, len(names))
        columns = [weights_RU @ counts_UQ]
        for loss_US in losses_US:
            seeds_RS = _draws(generator, count, loss_US.shape[1]) / loss_US.shape[1]
            columns.append(((weights_RU @ loss_US) * seeds_RS).sum(axis=1, keepdims=True))
        drawn.append(statistic(np.concatenate(columns, axis=1)))
    means = [loss_US.mean(axis=1).sum() for loss_US in losses_US]
    value = float(statistic(np.array([[*counts_UQ.sum(axis=0), *means]]))[0])
    return _summarise(value, np.concatenate(drawn), level=config.level)


def _by_user(user: IntArray, values_TQ: FloatArray) -> FloatArray:
    columns = [np.bincount(user, weights=column) for column in values_TQ.T]
    return np.stack(columns, axis=1).astype(np.float64)


def _draws(generator: np.random.Generator, count: int, size: int) -> FloatArray:
    """Return how often each of `size` is drawn in each of `count` resamples."""
    drawn = generator.integers(size, size=(count, size)) + size * np.arange(count)[:, None]
    return np.bincount(drawn.ravel(), minlength=count * size).reshape(count, size).astype(float)


def _summarise(value: float, draws: FloatArray, *, level: float) -> Estimate:
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        nan = float("nan")
        return Estimate(value=value, low=nan, high=nan, p=1.0)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    error = float(draws.std())
    p = float(2 * norm.sf(abs(value) / error)) if error > 0 else float(value == 0)
    return Estimate(value=value, low=float(low), high=float(high), p=p)
