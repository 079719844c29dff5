"""Popularity, item-kNN and the evaluation of retrieval, on worlds made by hand."""

import numpy as np
import pytest
import torch

from ml.bootstrap import BootstrapConfig
from ml.retrieval.baselines import (
    Engagements,
    item_knn_scores,
    item_similarity,
    popularity_scores,
)
from ml.retrieval.evaluation import (
    UNREACHABLE,
    RetrievalQueries,
    ndcg_interval,
    recall_interval,
    target_ranks,
)

DAY = 86_400.0


def _past() -> Engagements:
    return Engagements(
        user=np.array([1, 1, 2, 2, 3, 3, 3]),
        item=np.array([1, 2, 1, 2, 1, 3, 3]),
        time_seconds=np.array([1, 2, 3, 9.5, 9.6, 9.7, 10.5]) * DAY,
    )


def test_popularity_counts_its_window_and_never_the_future() -> None:
    catalogue = np.array([3, 1, 2, 9])
    scores = {
        window: popularity_scores(
            _past(), catalogue, now_seconds=10 * DAY, window_days=window
        ).tolist()
        for window in (1, 8, None)
    }
    assert scores == {1: [1, 1, 1, 0], 8: [1, 2, 2, 0], None: [1, 3, 2, 0]}


def test_item_similarity_is_the_shrunk_cosine_over_users() -> None:
    similarity = item_similarity(_past(), num_items=4, shrinkage=1.0).toarray()
    assert similarity[1, 2] == pytest.approx(2 / (np.sqrt(3 * 2) + 1))
    assert similarity[1, 3] == pytest.approx(1 / (np.sqrt(3 * 1) + 1))  # a user counts once
    assert similarity[2, 3] == 0
    assert (np.diag(similarity) == 0).all()
    assert np.array_equal(similarity, similarity.T)


def test_item_knn_sums_over_the_history_and_ignores_unknown_items() -> None:
    similarity = item_similarity(_past(), num_items=4, shrinkage=0.0)
    catalogue = np.array([3, 2, 1])
    scores = item_knn_scores([[1], [], [2, 3, 77]], similarity, catalogue)
    dense = similarity.toarray()
    expected = [
        dense[1, catalogue],
        np.zeros(3),
        dense[2, catalogue] + dense[3, catalogue],
    ]
    assert np.allclose(scores.numpy(), expected)


def test_target_ranks_equal_a_sort_and_hide_what_they_should() -> None:
    scores = torch.tensor([[5.0, 4.0, 3.0, 2.0], [1.0, 2.0, 3.0, 4.0], [9.0, 9.0, 9.0, 1.0]])
    catalogue = np.array([10, 20, 30, 40])
    queries = RetrievalQueries(
        user=np.array([1, 2, 3]),
        target=np.array([30, 99, 10]),
        hidden=[[10, 77], [40], [10]],  # the third lists its own target: it stays
    )
    ranks = target_ranks(lambda rows: scores[rows], queries, catalogue, chunk_size=2)
    assert ranks.tolist() == [2, UNREACHABLE, 2]
    free = RetrievalQueries(user=queries.user, target=queries.target)
    assert target_ranks(lambda rows: scores[rows], free, catalogue).tolist() == [3, UNREACHABLE, 2]


def test_recall_averages_users_and_pairs_methods() -> None:
    queries = RetrievalQueries(user=np.array([1, 1, 1, 2]), target=np.arange(4))
    ranks = np.array([1, 11, 11, 10])
    interval = recall_interval(queries, ranks)
    assert interval.estimate == pytest.approx((1 / 3 + 1) / 2)
    assert interval.users == 2
    same = recall_interval(queries, ranks, ranks)
    assert (same.estimate, same.low, same.high) == (0, 0, 0)
    assert ndcg_interval(queries, ranks).estimate == pytest.approx((1 / 3 + 1 / np.log2(11)) / 2)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(100):
        hits = generator.random(200) < 0.2
        queries = RetrievalQueries(user=np.arange(200), target=np.zeros(200, np.int64))
        interval = recall_interval(
            queries, np.where(hits, 1, 99), config=BootstrapConfig(draws=200, seed=trial)
        )
        covered += interval.low <= 0.2 <= interval.high
    assert 86 <= covered <= 100


def test_no_query_is_an_error() -> None:
    nobody = RetrievalQueries(user=np.zeros(0, np.int64), target=np.zeros(0, np.int64))
    with pytest.raises(ValueError, match="no held-out engagement"):
        recall_interval(nobody, np.zeros(0, np.int64))
