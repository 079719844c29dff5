"""A retriever beside its rivals: seen items are hidden from all, and the verdict needs the gap."""

import numpy as np
import pytest
import torch

from ml.retrieval.comparison import compare_retrievers
from ml.retrieval.evaluation import RetrievalQueries

ITEMS = np.arange(1, 31)


def _scores(*best: int) -> torch.Tensor:
    scores = torch.arange(30, 0, -1).float().repeat(len(best), 1) / 100
    for row, item in enumerate(best):
        scores[row, item - 1] = 1.0
    return scores


def test_what_was_seen_is_hidden_from_every_model() -> None:
    queries = RetrievalQueries(user=np.array([1, 2]), target=np.array([20, 11]), hidden=[[], [1]])
    found = compare_retrievers({"model": _scores(20, 11), "rival": _scores(1, 1)}, queries, ITEMS)
    assert found["models"]["model"]["recall"]["estimate"] == pytest.approx(1.0)
    # With item 1 hidden, item 11 is the rival's tenth; item 20 stays its twentieth.
    assert found["models"]["rival"]["recall"]["estimate"] == pytest.approx(0.5)
    assert found["differences"]["rival"]["estimate"] == pytest.approx(0.5)


def test_verdict_needs_the_lower_end_above_the_best_rival() -> None:
    users = np.arange(40)
    queries = RetrievalQueries(user=users, target=np.full(40, 25))
    always, never = _scores(*[25] * 40), _scores(*[1] * 40)
    won = compare_retrievers({"model": always, "rival": never}, queries, ITEMS)
    tied = compare_retrievers({"model": always, "rival": always}, queries, ITEMS)
    assert won["verdict"]["passed"] and not tied["verdict"]["passed"]
