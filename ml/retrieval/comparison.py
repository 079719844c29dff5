"""Compare a retriever with its rivals on the same queries, and say who is better."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ml.retrieval.evaluation import (
    RetrievalQueries,
    ndcg_interval,
    recall_interval,
    target_ranks,
)

RULE = (
    "Items that the member engaged with before the query are left out for every model, except "
    "the item that is asked for."
)

# Shapes: Q queries, N catalogue items.


def compare_retrievers(
    scores: Mapping[str, Tensor], queries: RetrievalQueries, item_index_N: NDArray[np.int64]
) -> dict[str, Any]:
    """Return recall and NDCG at 10 of each model, headline figures and the verdict.

    The first model passes if the lower end of its recall's interval is above every rival's
    recall.

    Args:
        scores: Model name to scores_QN; the first name is the model under test.
        queries: Targets, members and the items to hide.
        item_index_N: Item index of each catalogue column.
    """
    ranks = {
        name: target_ranks(table.__getitem__, queries, item_index_N)
        for name, table in scores.items()
    }
    first, *rivals = ranks
    recalls = {name: asdict(recall_interval(queries, r)) for name, r in ranks.items()}
    best = max(rivals, key=lambda name: recalls[name]["estimate"])
    headline = {f"recall_at_10_{name}": found["estimate"] for name, found in recalls.items()}
    headline[f"recall_at_10_{first}_low"] = recalls[first]["low"]
    passed = recalls[first]["low"] > recalls[best]["estimate"]
    return {
        "k": 10,
        "rule": RULE,
        "users": len(np.unique(queries.user)),
        "queries": len(queries.target),
        "catalogue": len(item_index_N),
        "models": {
            name: {"recall": recalls[name], "ndcg": asdict(ndcg_interval(queries, r))}
            for name, r in ranks.items()
        },
        "differences": {
            name: asdict(recall_interval(queries, ranks[first], ranks[name])) for name in rivals
        },
        "headline": headline,
        "verdict": {
            "passed": passed,
            "figures": headline,
            "reason": f"lower end {recalls[first]['low']:.4f} is "
            f"{'above' if passed else 'not above'} {best} {recalls[best]['estimate']:.4f}",
        },
    }
