"""The search space: paths into recipes, ranges, and draws that a seed decides."""

import math

import pytest

from ml.generative.prompt_ranker import recipes as prompt_recipes
from ml.ranking.sequence_ranker import recipes
from ml.retrieval.dual_encoder import recipes as retrieval_recipes
from ml.training.search_space import (
    FieldRange,
    clipped,
    default_space,
    drawn,
    replaced,
    value_of,
)


def test_replaces_numbers_at_several_depths_and_leaves_the_rest() -> None:
    before = recipes.toy()
    after = replaced(
        before,
        {
            "training.learning_rate": 1e-4,
            "training.hdet.spread_fraction": 0.25,
            "model.dropout_fraction": 0.1,
            "training.max_steps": 7.0,
        },
    )
    assert (after.training.learning_rate, after.training.hdet.spread_fraction) == (1e-4, 0.25)
    assert after.model.dropout_fraction == 0.1
    assert after.training.max_steps == 7 and isinstance(after.training.max_steps, int)
    assert before.training.learning_rate == 3e-3 and before.training.max_steps is None
    assert after.batches == before.batches
    assert replaced(before, {}) == before


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("training.rate", 1.0, "TrainConfig has no field 'rate'; choose one of .*learning_rate"),
        ("train.learning_rate", 1.0, "no field 'train.learning_rate': RankerConfig has no part"),
        ("training", 1.0, "RankerConfig has no number 'training'"),
        ("training.monitor", 1.0, "TrainConfig has no number 'monitor'"),
        ("training.hdet.auto_lr", 1.0, "HdetConfig has no number 'auto_lr'"),
        ("training.learning_rate.low", 1.0, "TrainConfig has no part 'learning_rate'"),
        ("training.epochs", 1.5, "training.epochs takes a whole number, not 1.5"),
        ("training.learning_rate", math.nan, "training.learning_rate takes a finite number"),
        ("training.max_steps", math.inf, "training.max_steps takes a finite number, not inf"),
        ("model.dropout_fraction", 1.5, "model.dropout_fraction = 1.5 is refused: dropout_frac"),
    ],
)
def test_names_the_field_that_is_wrong(field: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replaced(recipes.toy(), {field: value})


def test_default_space_of_a_ranker_surrounds_the_recipe() -> None:
    rate, decay, dropout = default_space(recipes.default())
    assert (rate.field, rate.log) == ("training.learning_rate", True)
    assert (rate.low, rate.high) == (pytest.approx(3e-3 / 8), pytest.approx(2.4e-2))
    assert (decay.field, decay.low, decay.high) == ("training.weight_decay", 0.025, 1.6)
    assert dropout == FieldRange(field="model.dropout_fraction", low=0.0, high=0.6)


@pytest.mark.parametrize("module", [retrieval_recipes, prompt_recipes])
def test_models_without_dropout_are_searched_for_rate_and_decay(module: object) -> None:
    fields = [each.field for each in default_space(module.default())]  # type: ignore[attr-defined]
    assert fields == ["training.learning_rate", "training.weight_decay"]


def test_the_same_seed_draws_the_same_trials_and_more_trials_begin_with_them() -> None:
    recipe = recipes.toy()
    space = default_space(recipe)
    eight = drawn(space, recipe, trials=8, seed=3)
    assert drawn(space, recipe, trials=8, seed=3) == eight
    assert drawn(space, recipe, trials=3, seed=3) == eight[:3]
    other = drawn(space, recipe, trials=8, seed=4)
    assert all(mine != theirs for mine, theirs in zip(eight[1:], other[1:], strict=True))
    assert eight[0] == {each.field: value_of(recipe, each.field) for each in space}
    assert len({values["training.learning_rate"] for values in eight}) == 8


def test_logarithmic_draws_halve_at_the_geometric_mean() -> None:
    recipe = recipes.toy()
    space = (FieldRange(field="training.learning_rate", low=1e-5, high=1e-1, log=True),)
    draws = [each["training.learning_rate"] for each in drawn(space, recipe, trials=401, seed=0)]
    assert all(1e-5 <= each <= 1e-1 for each in draws)
    below = sum(each < 1e-3 for each in draws[1:])  # the geometric mean; 2% lie below 1e-3 if even
    assert abs(below - 200) < 4 * math.sqrt(400 / 4)


def test_clips_into_the_ranges() -> None:
    space = (
        FieldRange(field="a", low=1.0, high=2.0),
        FieldRange(field="b", low=0.5, high=4.0, log=True),
    )
    assert clipped(space, {"a": 2.4, "b": 0.1, "c": 9.0}) == {"a": 2.0, "b": 0.5}


@pytest.mark.parametrize(
    ("low", "high", "log"), [(1.0, 1.0, False), (0.0, 1.0, True), (0.0, math.inf, False)]
)
def test_refuses_what_is_no_range(low: float, high: float, log: bool) -> None:
    with pytest.raises(ValueError, match=r"^rate: "):
        FieldRange(field="rate", low=low, high=high, log=log)


def test_refuses_a_search_without_trials_or_with_a_field_twice() -> None:
    recipe = recipes.toy()
    space = default_space(recipe)
    for fields, trials in (((), 2), (space, 0), ((*space, space[0]), 2)):
        with pytest.raises(ValueError, match="a search takes a trial and fields"):
            drawn(fields, recipe, trials=trials, seed=0)
