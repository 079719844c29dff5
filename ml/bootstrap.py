"""Intervals by resampling users: rows of one user are not independent, users are."""

from dataclasses import dataclass

import numpy as np

from ml.features import FloatArray, IntArray
from ml.metrics import cross_entropies

# Shapes: U users, R draws, Q summed quantities.
_DRAWS_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """Hold an estimate with its percentile interval.

    Attributes:
        estimate: The value on all users.
        low: Lower end.
        high: Upper end.
        users: Number of resampled users.
    """

    estimate: float
    low: float
    high: float
    users: int

    @property
    def excludes_zero(self) -> bool:
        """Return whether zero lies outside."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, kw_only=True, slots=True)
class BootstrapConfig:
    """Say how often to resample.

    Attributes:
        draws: Number of resamples.
        level: Coverage of the interval.
        seed: Seed of the private generator.
    """

    draws: int = 1000
    level: float = 0.95
    seed: int = 0


DEFAULT = BootstrapConfig()


def entropy_difference_interval(
    users: IntArray,
    labels: IntArray,
    probabilities: FloatArray,
    others: FloatArray,
    *,
    config: BootstrapConfig = DEFAULT,
) -> Interval:
    """Return NE(probabilities) - NE(others), paired; below zero the first is better.

    Args:
        users: User of each row.
        labels: 0 or 1.
        probabilities: Of the first model.
        others: Of the second model, on the same rows.
        config: Draws and seed.
    """
    quantities = [
        np.ones(len(labels)),
        np.asarray(labels, np.float64),
        cross_entropies(labels, probabilities) - cross_entropies(labels, others),
    ]
    sums_UQ = _sums_by_user(users, quantities)
    return _interval(sums_UQ, _entropy_ratio, config=config)


def entropy_interval(
    users: IntArray,
    labels: IntArray,
    probabilities: FloatArray,
    *,
    config: BootstrapConfig = DEFAULT,
) -> Interval:
    """Return the normalised entropy with its interval."""
    losses = cross_entropies(labels, probabilities)
    quantities = [np.ones(len(labels)), np.asarray(labels, np.float64), losses]
    return _interval(_sums_by_user(users, quantities), _entropy_ratio, config=config)


def mean_interval(
    users: IntArray, values: FloatArray, *, config: BootstrapConfig = DEFAULT
) -> Interval:
    """Return the mean of row values (a hit, or a difference of hits) with its interval."""
    sums_UQ = _sums_by_user(users, [np.ones(len(values)), np.asarray(values, np.float64)])
    return _interval(sums_UQ, lambda sums: sums[:, 1] / sums[:, 0], config=config)


def ratio_interval(
    users: IntArray,
    numerators: FloatArray,
    denominators: FloatArray,
    *,
    config: BootstrapConfig = DEFAULT,
) -> Interval:
    """Return summed numerators over summed denominators (a weighted mean) with its interval.

    A draw of users whose denominators add up to 0 is left out.
    """
    sums_UQ = _sums_by_user(users, [np.asarray(denominators), np.asarray(numerators)])

    def ratio(sums_RQ: FloatArray) -> FloatArray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return sums_RQ[:, 1] / sums_RQ[:, 0]

    return _interval(sums_UQ, ratio, config=config)


def auc_interval(
    users: IntArray,
    labels: IntArray,
    scores: FloatArray,
    *,
    config: BootstrapConfig = DEFAULT,
) -> Interval:
    """Return the AUC with its interval; NaN if one class is missing.

    Each draw weighs the rows of a user by how often the user was drawn; one sort serves all.
    """
    names, user = np.unique(users, return_inverse=True)
    order = np.argsort(scores, kind="stable")
    user, positive = user[order], np.asarray(labels)[order] > 0
    starts = np.flatnonzero(np.r_[True, np.diff(np.asarray(scores)[order]) > 0])
    generator = np.random.default_rng(config.seed)
    draws = [
        _weighted_auc(_one_draw(generator, len(names))[user], positive, starts)
        for _ in range(config.draws)
    ]
    estimate = _weighted_auc(np.ones(len(user)), positive, starts)
    return _percentiles(estimate, np.array(draws), users=len(names), level=config.level)


def _weighted_auc(weights: FloatArray, positive: np.ndarray, starts: IntArray) -> float:
    """Return the weighted AUC of rows sorted by score, ties starting at `starts`."""
    up = np.add.reduceat(weights * positive, starts)
    down = np.add.reduceat(weights * ~positive, starts)
    below = np.cumsum(down) - down
    pairs = up.sum() * down.sum()
    return float((up * (below + down / 2)).sum() / pairs) if pairs else float("nan")


def _sums_by_user(users: IntArray, quantities: list[FloatArray]) -> FloatArray:
    """Return the sums per user, float64 [U, Q]."""
    names, user = np.unique(users, return_inverse=True)
    columns = [np.bincount(user, weights=values, minlength=len(names)) for values in quantities]
    return np.stack(columns, axis=1).astype(np.float64)


def _entropy_ratio(sums_RQ: FloatArray) -> FloatArray:
    """Return loss per row over the entropy of the base rate, of (rows, positives, loss)."""
    rate = sums_RQ[:, 1] / sums_RQ[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
        return sums_RQ[:, 2] / sums_RQ[:, 0] / entropy


def _one_draw(generator: np.random.Generator, num_users: int) -> FloatArray:
    """Return how often each user is drawn in one resample."""
    drawn = generator.integers(num_users, size=num_users)
    return np.bincount(drawn, minlength=num_users).astype(np.float64)


def _interval(sums_UQ: FloatArray, statistic, *, config: BootstrapConfig) -> Interval:
    """Resample users and return the statistic of the summed quantities with its interval."""
    num_users = len(sums_UQ)
    generator = np.random.default_rng(config.seed)
    drawn = []
    for first in range(0, config.draws, _DRAWS_AT_ONCE):
        count = min(_DRAWS_AT_ONCE, config.draws - first)
        weights = np.stack([_one_draw(generator, num_users) for _ in range(count)])
        drawn.append(statistic(weights @ sums_UQ))
    estimate = float(statistic(sums_UQ.sum(axis=0, keepdims=True))[0])
    return _percentiles(estimate, np.concatenate(drawn), users=num_users, level=config.level)


def _percentiles(estimate: float, draws: FloatArray, *, users: int, level: float) -> Interval:
    """Return the percentile interval of the defined draws."""
    draws = draws[~np.isnan(draws)]
    if not len(draws):
        return Interval(estimate=estimate, low=float("nan"), high=float("nan"), users=users)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate=estimate, low=float(low), high=float(high), users=users)
