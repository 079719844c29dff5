"""Retrieval metrics over the full catalogue: ranks, ties, and the rule for seen items."""

import numpy as np
import pytest
import torch

from ml.retrieval.evaluation import evaluate_retrieval, target_ranks

ITEMS = torch.arange(1, 31)


def test_ranks_count_better_items_and_earlier_ties() -> None:
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.5]])
    assert [int(target_ranks(scores, torch.tensor([c]))[0]) for c in range(4)] == [4, 1, 2, 3]


def _scores(*best: int) -> torch.Tensor:
    scores = torch.zeros(len(best), 30)
    for row, item in enumerate(best):
        scores[row] = -torch.arange(30) / 100
        scores[row, item - 1] = 1.0
    return scores


def test_seen_items_are_left_out_for_every_model_and_seen_targets_not_counted() -> None:
    found = evaluate_retrieval(
        {"model": _scores(20, 20, 20), "rival": _scores(1, 1, 1)},
        target_Q=np.array([20, 11, 5]),
        seen=[[], [1], [5]],
        users_Q=np.array([1, 2, 3]),
        item_index_N=ITEMS,
    )
    assert found["queries"] == 2
    # Query 1: the model puts 20 first; the rival ranks it 20th. Query 2: with item 1 hidden, the
    # rival ranks item 11 tenth; the model puts 20 before it and still ranks it eleventh - 1 = 11.
    assert found["models"]["model"]["recall"]["estimate"] == pytest.approx(0.5)
    assert found["models"]["rival"]["recall"]["estimate"] == pytest.approx(0.5)
    assert found["differences"]["rival"]["estimate"] == pytest.approx(0.0)


def test_nothing_to_count_is_an_error() -> None:
    with pytest.raises(ValueError, match="no retrieval query"):
        evaluate_retrieval(
            {"model": _scores(1)},
            target_Q=np.array([5]),
            seen=[[5]],
            users_Q=np.array([1]),
            item_index_N=ITEMS,
        )
