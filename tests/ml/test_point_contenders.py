"""Point-wise contenders: they learn a planted taste, repeat themselves and look back only."""

from pathlib import Path

import numpy as np
import pytest

from ml.features import SequenceData
from ml.metrics import normalized_entropy
from ml.ranking.contenders import Exam, Setting
from ml.ranking.leaderboard.boosted_trees import TreesScorer
from ml.ranking.leaderboard.boosted_trees import contender as trees
from ml.ranking.leaderboard.recipes import RECIPES
from ml.ranking.pointwise_ranker.contender import contender as pointwise
from tests.ml.leaderboard_exam import planted_splits
from tests.ml.sequence_examples import changed, feature_spec, item_table

FIRST = Setting(seed=0, trial=1)


def _exam(splits: dict[str, SequenceData]) -> Exam:
    known = {name: splits[name] for name in ("train", "validation")}
    return Exam(splits=known, items=item_table(), spec=feature_spec())


@pytest.fixture(scope="module")
def splits() -> dict[str, SequenceData]:
    return planted_splits(users=120)


@pytest.fixture(scope="module")
def boosted(splits: dict[str, SequenceData]) -> TreesScorer:
    scorer = trees()(_exam(splits), FIRST, Path())
    assert isinstance(scorer, TreesScorer)
    return scorer


def test_boosted_trees_learn_the_planted_taste_and_not_the_noise(
    splits: dict[str, SequenceData], boosted: TreesScorer
) -> None:
    test = splits["test"]
    predicted = boosted.probabilities(test)
    assert predicted.shape == (3600, 3)
    assert normalized_entropy(test.labels(0), predicted[:, 0]) < 0.93
    for bit in (1, 2):  # like and share are coin flips
        assert 0.99 < normalized_entropy(test.labels(bit), predicted[:, bit]) < 1.02
    assert boosted.num_parameters > boosted.epochs > 5


def test_boosted_trees_repeat_themselves_and_read_earlier_requests_only(
    splits: dict[str, SequenceData], boosted: TreesScorer
) -> None:
    again = trees()(_exam(splits), FIRST, Path())
    before = boosted.probabilities(splits["test"])
    assert np.array_equal(again.probabilities(splits["test"]), before)
    actions = splits["test"].actions.copy().reshape(120, 30)
    actions[:, 15:18] ^= 1
    after = boosted.probabilities(changed(splits["test"], actions=actions.ravel()))
    moved = (after != before).any(axis=1).reshape(120, 30)
    assert not moved[:, :18].any()
    assert moved[:, 18:].mean() > 0.5


def test_an_action_of_one_class_is_predicted_by_its_rate(
    splits: dict[str, SequenceData],
) -> None:
    train = splits["train"]
    exam = _exam({**splits, "train": changed(train, actions=train.actions & ~4)})
    assert not trees()(exam, FIRST, Path()).probabilities(splits["test"])[:, 2].any()


@pytest.mark.usefixtures("one_thread")
def test_a_point_wise_recipe_learns_the_planted_taste_and_repeats_itself(
    splits: dict[str, SequenceData], tmp_path: Path
) -> None:
    test = splits["test"]
    fits = [
        pointwise(recipe="din")(_exam(splits), Setting(seed=1, trial=2), tmp_path / name)
        for name in ("one", "two")
    ]
    predicted = fits[0].probabilities(test)
    assert normalized_entropy(test.labels(0), predicted[:, 0]) < 0.97
    assert np.array_equal(predicted, fits[1].probabilities(test))
    assert fits[0].num_parameters > 10_000
    assert 1 <= fits[0].epochs <= 4


def test_point_wise_recipes_and_boosted_trees_stand_in_the_list() -> None:
    for name in ("dcn_v2", "dcn_v2_low_rank", "din", "sasrec", "lirank"):
        assert RECIPES[name].arguments == {"recipe": name}
        RECIPES[name].contender()
    RECIPES["lightgbm"].contender()
    with pytest.raises(ValueError, match="no point-wise recipe"):
        pointwise(recipe="magic")
