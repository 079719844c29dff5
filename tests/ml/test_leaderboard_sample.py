"""A sample of users is the same in every split, and drawn blind to what they did."""

import numpy as np
import pytest

from ml.ranking.leaderboard.sample import sample_users
from tests.ml.sequence_examples import changed, sequences


def test_the_same_users_are_kept_in_every_split_with_all_their_rows() -> None:
    users = np.arange(1, 41, dtype=np.int32)
    train = changed(sequences([3] * 40), user=users)
    test = changed(sequences([2] * 40, split="test"), user=users[::-1].copy())
    kept = sample_users({"train": train, "test": test}, most=10)
    assert len(np.unique(kept["train"].user)) == 10
    assert set(kept["train"].user) == set(kept["test"].user)
    assert kept["train"].lengths.tolist() == [3] * 10
    again = sample_users({"train": changed(train, actions=1 - train.actions % 2)}, most=10)
    assert again["train"].user.tolist() == kept["train"].user.tolist()


def test_few_users_are_all_kept() -> None:
    train = sequences([3] * 4)
    assert sample_users({"train": train}, most=4)["train"] is train


def test_no_users_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        sample_users({"train": sequences([3])}, most=0)
