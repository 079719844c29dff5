"""What would a model have earned? Two estimates from a log, without serving the model.

Both look at the first position only: the model would show its best-scored candidate there, and
the log knows what came of it in those requests in which that very item stood there. In requests
whose order was drawn uniformly, such matches are a fair sample, and their mean is the replay
contribution rate. In other requests an item that the old policy liked stands there too often;
each match then counts by the inverse of the logged probability that it would stand there.

Both need an order that was really drawn as logged, the request's logged items as candidates, and
scores that do not know where an item stood: give all candidates one position. Then the model's
best item stands first as often as chance has it, whatever the model. That is checked, and the
estimate refused if it fails by far.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ml.bootstrap import DEFAULT, BootstrapConfig, Interval, ratio_interval
from ml.features import BoolArray, FeatureSpec, FloatArray, IntArray, SequenceData

# Shapes: N rows.
_LARGEST_GAP_IN_ERRORS = 5.0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LoggedRequests:
    """Hold the impressions of whole requests, one row each, in any order.

    Attributes:
        user: User of each row, [N].
        request: Request number, unique within its user, [N].
        position: Position within the request, from 0, [N]; below 0 if unknown.
        contributed: Whether the row's item was engaged with (other than by a click), [N].
        is_shuffled: Whether the request's order was drawn uniformly, [N]; None if unknown.
        propensity: Probability that the policy put the item at its position, [N]; NaN or None if
            unknown.
    """

    user: IntArray
    request: IntArray
    position: IntArray
    contributed: BoolArray
    is_shuffled: BoolArray | None = None
    propensity: FloatArray | None = None

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If lengths differ or two rows of a request stand first.
        """
        columns = (self.request, self.position, self.contributed, self.is_shuffled, self.propensity)
        if any(column is not None and len(column) != len(self.user) for column in columns):
            raise ValueError("the columns of a log must be equally long")
        first = _request_numbers(self)[np.asarray(self.position) == 0]
        if len(np.unique(first)) < len(first):
            raise ValueError(
                "two rows of a request stand first; keep one row per impression, and number "
                "requests within their user"
            )

    @classmethod
    def of_targets(
        cls, data: SequenceData, *, spec: FeatureSpec, contributions: Sequence[str]
    ) -> "LoggedRequests":
        """Return the target events of sequences, in order.

        Args:
            data: Sequences, whose positions count from 1 and are 0 where unknown.
            spec: Names of the actions.
            contributions: Actions that count as engagement.

        Raises:
            ValueError: If there is no such action.
        """
        if unknown := sorted(set(contributions) - set(spec.actions)):
            raise ValueError(f"there is no action {unknown[0]!r}; there are {spec.actions}")
        labels = [data.labels(spec.actions.index(name)) > 0 for name in contributions]
        target, row = data.is_target, data.event_row
        return cls(
            user=data.user[row][target],
            request=_numbers_of_pairs(row, data.request)[target],
            position=data.position[target].astype(np.int64) - 1,
            contributed=np.any(labels, axis=0)[target],
            is_shuffled=data.is_shuffled[target],
            propensity=data.propensity[target],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayRate:
    """Hold an estimated contribution rate at the first position.

    Attributes:
        rate: The rate with its interval over users; NaN if nothing matched.
        matches: Requests in which the model's best item stood first; one of k items that share
            the best score counts 1 / k.
        requests: Requests that were looked at.
        incomplete: Further requests, left out because their first position is not in the log.
        effective_matches: (sum of weights)^2 / sum of squared weights; few means a wide interval.
        match_ratio: How often the best item stood first, over what chance has it; 1 but for noise.
    """

    rate: Interval
    matches: float
    requests: int
    incomplete: int
    effective_matches: float
    match_ratio: float


def replay_rate(
    log: LoggedRequests, scores: FloatArray, *, config: BootstrapConfig = DEFAULT
) -> ReplayRate:
    """Return the replay contribution rate: engaged matches over matches, of shuffled requests.

    Args:
        log: Whole requests; those that were not shuffled are left out.
        scores: The model's score of each row, higher is better.
        config: Draws and seed of the interval.

    Raises:
        ValueError: If the log has no shuffled request or no positions, a score is missing or not
            a number, or the scores know the logged position.

    Source: shared-definitions 0.1.
    """
    _check_scores(log, scores)
    is_uniform = _shuffled_throughout(log)
    if not is_uniform.any():
        raise ValueError(
            "this log has no request whose order was shuffled uniformly, so there is nothing to "
            "replay; use a source that logs a shuffled slice, such as the simulated feed, or "
            "inverse_propensity_rate where propensities are logged"
        )
    if not (np.asarray(log.position) == 0)[is_uniform].any():
        raise ValueError(
            "no shuffled request of this log has a row at position 0; replay needs the positions"
        )
    rows = np.bincount(_request_numbers(log))[_request_numbers(log)]
    inverse = np.where(is_uniform, rows, 0.0)
    return _rate_of(log, scores, inverse=inverse, largest_weight=1.0, config=config)


def inverse_propensity_rate(
    log: LoggedRequests,
    scores: FloatArray,
    *,
    largest_weight: float = 50.0,
    config: BootstrapConfig = DEFAULT,
) -> ReplayRate:
    """Return the same rate from requests of any order, each match weighed by 1 / propensity.

    Weights are clipped, which keeps one rare match from deciding all and biases the estimate
    towards the old policy's; they are normalised by their sum. Where all propensities are equal,
    as in shuffled requests of one length, it is the replay rate.

    Args:
        log: Whole requests with propensities.
        scores: The model's score of each row, higher is better.
        largest_weight: Where weights are clipped.
        config: Draws and seed of the interval.

    Raises:
        ValueError: If there is no first position, a propensity is missing there or not within
            (0, 1], the largest weight is below 1, a score is missing or not a number, or the
            scores know the logged position.
    """
    _check_scores(log, scores)
    if largest_weight < 1:
        raise ValueError(f"weights are 1 or more; clip at more than {largest_weight}")
    first = np.asarray(log.position) == 0
    if not first.any():
        raise ValueError("this log has no row at position 0; give it positions")
    propensity = np.full(len(first), np.nan) if log.propensity is None else log.propensity
    if not ((propensity > 0) & (propensity <= 1))[first].all():
        raise ValueError(
            "a first position has no propensity within (0, 1]; this log cannot be weighed by it"
        )
    inverse = np.ones(len(first))
    inverse[first] = 1 / propensity[first]
    return _rate_of(log, scores, inverse=inverse, largest_weight=largest_weight, config=config)


def _rate_of(
    log: LoggedRequests,
    scores: FloatArray,
    *,
    inverse: FloatArray,
    largest_weight: float,
    config: BootstrapConfig,
) -> ReplayRate:
    """Return the weighted rate over the first rows.

    Args:
        log: Whole requests.
        scores: The model's score of each row.
        inverse: 1 / probability that the row's item stands first; 0 in requests to leave out.
        largest_weight: Where weights are clipped.
        config: Draws and seed of the interval.
    """
    number = _request_numbers(log)
    share = _share_of_best(number, scores)
    first = np.asarray(log.position) == 0
    has_first = np.bincount(number, weights=first) > 0
    is_used = np.bincount(number, weights=inverse) > 0
    looked_at = first & (inverse > 0)
    match_ratio = _match_ratio(share[looked_at], inverse[looked_at])
    matched = looked_at & (share > 0)
    weight = (np.minimum(inverse, largest_weight) * share)[matched]
    rate = Interval(estimate=float("nan"), low=float("nan"), high=float("nan"), users=0)
    if len(weight):
        earned = weight * (np.asarray(log.contributed)[matched] > 0)
        rate = ratio_interval(log.user[matched], earned, weight, config=config)
    return ReplayRate(
        rate=rate,
        matches=float(share[matched].sum()),
        requests=int((is_used & has_first).sum()),
        incomplete=int((is_used & ~has_first).sum()),
        effective_matches=float(weight.sum() ** 2 / (weight**2).sum()) if len(weight) else 0.0,
        match_ratio=match_ratio,
    )


def _match_ratio(share: FloatArray, inverse: FloatArray) -> float:
    """Return the mean of share / probability over requests, whose expectation is 1.

    Its error is taken from the requests, but not below what a best item of average probability
    gives, since a few requests may all match by luck.

    Raises:
        ValueError: If it is more than five errors away from 1.
    """
    found = share * inverse
    deviation = max(float(found.std()), float(np.sqrt(max(inverse.mean() - 1, 0))))
    ratio = float(found.mean())
    if abs(ratio - 1) * np.sqrt(len(found)) > _LARGEST_GAP_IN_ERRORS * deviation + 1e-9:
        raise ValueError(
            f"the model's best item stood first {ratio:.2f} times as often as chance has it; its "
            "scores know the logged position (score all candidates at one position), or the order "
            "was not drawn as the log says"
        )
    return ratio


def _share_of_best(number: IntArray, scores: FloatArray) -> FloatArray:
    """Return 1 / k for the k best rows of each request, 0 for the others.

    Ties are shared, not broken: the order of rows, which may be the old policy's, decides nothing.
    """
    best = np.full(number.max() + 1 if len(number) else 0, -np.inf)
    np.maximum.at(best, number, scores)
    is_best = scores == best[number]
    return is_best / np.bincount(number, weights=is_best)[number]


def _shuffled_throughout(log: LoggedRequests) -> BoolArray:
    """Return the rows of requests that were shuffled as a whole.

    A request with some rows inserted at random is not one: its order was not uniform.
    """
    if log.is_shuffled is None:
        return np.zeros(len(log.user), bool)
    number = _request_numbers(log)
    kept = np.bincount(number, weights=~np.asarray(log.is_shuffled, bool))
    return kept[number] == 0


def _request_numbers(log: LoggedRequests) -> IntArray:
    """Return a number per (user, request), from 0, [N]."""
    return _numbers_of_pairs(log.user, log.request)


def _numbers_of_pairs(left: IntArray, right: IntArray) -> IntArray:
    """Return a number per pair of values, from 0, [N]."""
    left_number = np.unique(left, return_inverse=True)[1]
    values, right_number = np.unique(right, return_inverse=True)
    return np.unique(left_number * len(values) + right_number, return_inverse=True)[1]


def _check_scores(log: LoggedRequests, scores: FloatArray) -> None:
    """Refuse scores that do not rank the log's rows.

    Raises:
        ValueError: If their number differs or one is not a number.
    """
    if len(scores) != len(log.user) or np.isnan(scores).any():
        raise ValueError(f"give one score that is a number to each of the {len(log.user)} rows")
