"""Judge retrieval: the rank of each held-out engagement in the full catalogue.

The rule for seen items is the caller's and must be the same for every method that is compared:
either nothing is hidden, or each query's listed items are hidden from it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ml.bootstrap import DEFAULT, BootstrapConfig, Interval
from ml.retrieval.knn import hide_items

# Shapes: Q queries, N catalogue items, U users, R draws.

UNREACHABLE = 2**31 - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrievalQueries:
    """Hold the held-out engagements.

    Attributes:
        user: User of each query; users are what the intervals resample.
        target: Item index that was engaged with.
        hidden: Item indices that the query must not get, None to hide nothing.
    """

    user: NDArray[np.int64]
    target: NDArray[np.int64]
    hidden: Sequence[Sequence[int]] | None = None


def target_ranks(
    score: Callable[[slice], Tensor],
    queries: RetrievalQueries,
    item_index_N: NDArray[np.int64],
    *,
    chunk_size: int = 1024,
) -> NDArray[np.int64]:
    """Rank every query's target in the catalogue, from 1; ties count half of their number.

    Args:
        score: Takes a slice of the queries, returns their scores_QN.
        queries: Targets and hidden items; a target is never hidden from its own query.
        item_index_N: Catalogue.
        chunk_size: Queries scored at once.

    Returns:
        Ranks; `UNREACHABLE` where the catalogue lacks the target.
    """
    column = {int(item): place for place, item in enumerate(item_index_N)}
    catalogue = torch.from_numpy(np.asarray(item_index_N))
    ranks = np.full(len(queries.target), UNREACHABLE, dtype=np.int64)
    for start in range(0, len(queries.target), chunk_size):
        chunk = slice(start, start + chunk_size)
        targets = queries.target[chunk]
        places = np.array([column.get(int(item), -1) for item in targets])
        scores_QN, rows = score(chunk), torch.arange(len(targets))
        wanted = scores_QN[rows, torch.from_numpy(places).clamp(min=0)][:, None]
        if queries.hidden is not None:
            scores_QN = hide_items(scores_QN, queries.hidden[chunk], item_index_N=catalogue)
            scores_QN[rows, torch.from_numpy(places).clamp(min=0)] = wanted[:, 0]
        better = (scores_QN > wanted).sum(dim=1)
        equal = (scores_QN == wanted).sum(dim=1) - 1
        found = places >= 0
        ranks[chunk][found] = (1 + better + equal // 2).numpy()[found]
    return ranks


def recall_interval(
    queries: RetrievalQueries,
    ranks: NDArray[np.int64],
    others: NDArray[np.int64] | None = None,
    *,
    k: int = 10,
    config: BootstrapConfig = DEFAULT,
) -> Interval:
    """Return Recall@k, averaged over users, with its interval; or its lead over another method.

    Args:
        queries: Whose users are resampled.
        ranks: Of the method.
        others: Of the method to compare with, on the same queries; None for the value itself.
        k: Length of the list.
        config: Draws and seed.
    """
    hits = (ranks <= k).astype(np.float64)
    if others is not None:
        hits -= others <= k
    return user_mean_interval(queries.user, hits, config=config)


def ndcg_interval(
    queries: RetrievalQueries,
    ranks: NDArray[np.int64],
    *,
    k: int = 10,
    config: BootstrapConfig = DEFAULT,
) -> Interval:
    """Return NDCG@k of one relevant item per query, averaged over users, with its interval."""
    gains = np.where(ranks <= k, 1.0 / np.log2(ranks.astype(np.float64) + 1.0), 0.0)
    return user_mean_interval(queries.user, gains, config=config)


def user_mean_interval(
    users: NDArray[np.int64], values: NDArray[np.float64], *, config: BootstrapConfig = DEFAULT
) -> Interval:
    """Average values within each user, then over users; resample users for the interval.

    Raises:
        ValueError: If there is no user.
    """
    if not len(users):
        raise ValueError("no held-out engagement to evaluate retrieval on")
    _, place = np.unique(users, return_inverse=True)
    means_U = np.bincount(place, weights=values) / np.bincount(place)
    generator = np.random.default_rng(config.seed)
    draws_R = np.array(
        [
            means_U[generator.integers(0, len(means_U), len(means_U))].mean()
            for _ in range(config.draws)
        ]
    )
    tail = (1 - config.level) / 2
    low, high = np.quantile(draws_R, [tail, 1 - tail])
    return Interval(
        estimate=float(means_U.mean()), low=float(low), high=float(high), users=len(means_U)
    )
