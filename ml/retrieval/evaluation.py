"""Judge retrieval over the full catalogue: one next engaged item per member, rivals beside it.

Rule for seen items: what a member engaged with before the query is left out for every model, and
a query whose target is among those is not counted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ml.bootstrap import mean_interval
from ml.metrics import ndcg_at
from ml.retrieval.knn import hide_items

RULE = (
    "Items a member engaged with before the query are left out for every model; a query whose "
    "target is among them is not counted."
)

# Shapes: Q queries, N catalogue items.


def evaluate_retrieval(
    scores: Mapping[str, Tensor],
    *,
    target_Q: NDArray[np.int64],
    seen: Sequence[Sequence[int]],
    users_Q: NDArray[np.int64],
    item_index_N: Tensor,
) -> dict[str, Any]:
    """Return recall and NDCG at 10 with intervals, and paired differences to the first model.

    Args:
        scores: Model name to scores_QN; the first name is the model under test.
        target_Q: Item index that each member engaged with next.
        seen: Item indices each member engaged with before.
        users_Q: Member of each query.
        item_index_N: Item index of each catalogue column.

    Raises:
        ValueError: If no query can be counted.
    """
    row_of = {int(item): row for row, item in enumerate(item_index_N.tolist())}
    counted = np.array(
        [int(t) in row_of and int(t) not in set(s) for t, s in zip(target_Q, seen, strict=True)]
    )
    if not counted.any():
        raise ValueError("no retrieval query has an unseen target in the catalogue")
    kept = np.flatnonzero(counted)
    hidden = [seen[place] for place in kept]
    column_Q = torch.tensor([row_of[int(target_Q[place])] for place in kept])
    ranks = {
        name: target_ranks(hide_items(s[kept], hidden, item_index_N=item_index_N), column_Q)
        for name, s in scores.items()
    }
    users, first = users_Q[kept], next(iter(scores))
    hits = {name: (r <= 10).astype(np.float64) for name, r in ranks.items()}
    return {
        "k": 10,
        "rule": RULE,
        "users": len(np.unique(users)),
        "queries": len(kept),
        "catalogue": len(item_index_N),
        "models": {
            name: {
                "recall": asdict(mean_interval(users, hits[name])),
                "ndcg": {"estimate": ndcg_at(ranks[name], k=10)},
            }
            for name in scores
        },
        "differences": {
            name: asdict(mean_interval(users, hits[first] - hits[name]))
            for name in scores
            if name != first
        },
    }


def target_ranks(scores_QN: Tensor, column_Q: Tensor) -> NDArray[np.int64]:
    """Return the rank of each query's target from 1; among equal scores the lower column leads."""
    target_Q1 = scores_QN.gather(1, column_Q[:, None])
    above = (scores_QN > target_Q1).sum(dim=1)
    columns = torch.arange(scores_QN.shape[1])[None, :]
    tied_before = ((scores_QN == target_Q1) & (columns < column_Q[:, None])).sum(dim=1)
    return (above + tied_before + 1).numpy()


def retrieval_verdict(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headline figures, and whether the first model beats the best rival.

    It does if the lower end of its recall's interval is above every rival's recall.

    Args:
        result: From `evaluate_retrieval`.
    """
    recalls = {name: found["recall"] for name, found in result["models"].items()}
    first, *rivals = recalls
    best = max(rivals, key=lambda name: recalls[name]["estimate"])
    headline = {f"recall_at_10_{name}": found["estimate"] for name, found in recalls.items()}
    headline[f"recall_at_10_{first}_low"] = recalls[first]["low"]
    passed = recalls[first]["low"] > recalls[best]["estimate"]
    return {
        "headline": headline,
        "verdict": {
            "passed": passed,
            "figures": headline,
            "reason": f"lower end {recalls[first]['low']:.4f} is "
            f"{'above' if passed else 'not above'} {best} {recalls[best]['estimate']:.4f}",
        },
    }
