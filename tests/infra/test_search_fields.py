"""Which fields and ranges can be asked for, and which recipes a trial cannot train."""

from dataclasses import replace

import pytest

from infra.errors import UserError
from infra.search_fields import check_searchable, chosen_space, differences
from ml.generative.prompt_ranker import recipes as prompt_recipes
from ml.ranking.sequence_ranker.recipes import recipe, toy
from ml.retrieval.dual_encoder import recipes as retriever_recipes
from ml.training.search_space import FieldRange, default_space

RATE, CLIP, EPOCHS = "training.learning_rate", "training.clip_norm", "training.epochs"


def test_without_fields_the_default_is_searched() -> None:
    assert chosen_space((), toy()) == default_space(toy())


def test_a_field_alone_has_its_default_range() -> None:
    space = chosen_space([f" {RATE} "], toy())
    assert space == (FieldRange(field=RATE, low=3e-3 / 8, high=3e-3 * 8, log=True),)


def test_a_range_of_ten_times_or_more_is_drawn_by_its_logarithm() -> None:
    space = chosen_space(
        [f"{RATE}=1e-4:1e-2", f"{CLIP}=0.5:4", "model.dropout_fraction=0:.5"], toy()
    )
    assert space == (
        FieldRange(field=RATE, low=1e-4, high=1e-2, log=True),
        FieldRange(field=CLIP, low=0.5, high=4.0, log=False),
        FieldRange(field="model.dropout_fraction", low=0.0, high=0.5, log=False),
    )
    assert chosen_space([f"{CLIP}=1:10"], toy())[0].log


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["training.rate"], "no field 'training.rate'.*choose one of .*'learning_rate'.*known"),
        (["rate"], "RankerConfig has no field 'rate'.*training.weight_decay"),
        ([CLIP], f"{CLIP} has no range of its own; write {CLIP}=low:high; known .*{RATE}"),
        ([f"{RATE}=fast"], f"{RATE}=fast is no range; write it as {RATE}=1e-4:1e-2"),
        ([f"{RATE}=1e-4"], f"{RATE}=1e-4 is no range"),
        ([f"{RATE}=1e-2:1e-4"], f"{RATE}: 0.01 to 0.0001 is no range; set low < high"),
        ([f"{RATE}=1e-4:nan"], "is no range"),
        ([f"{RATE}=-1:1"], f"{RATE} = -1.0 is refused: learning_rate"),
        ([f"{EPOCHS}=1:4"], f"{EPOCHS} takes a whole number"),
        ([RATE, f"{RATE}=1e-4:1e-2"], f"FIELDS names {RATE} twice"),
    ],
)
def test_names_the_field_that_is_wrong(asked: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        chosen_space(asked, toy())


@pytest.mark.parametrize("recipes", [prompt_recipes, retriever_recipes])
def test_a_split_model_is_not_searched(recipes: object) -> None:
    split = recipes.recipe("fully_sharded")  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(UserError, match=r"training.sharding = 'full' cannot be searched"):
        check_searchable(split, model="retriever", method="random")


def test_a_population_of_one_epoch_is_no_population() -> None:
    short = replace(toy(), training=replace(toy().training, epochs=1))
    check_searchable(short, model="ranker", method="random")
    check_searchable(toy(), model="ranker", method="population")
    with pytest.raises(UserError, match="trains for one; choose a RECIPE of more epochs"):
        check_searchable(short, model="ranker", method="population")


def test_says_how_one_worker_differs_from_several() -> None:
    equal = retriever_recipes.recipe("global_batch")
    assert differences(equal, step_batches=2) == ()
    assert differences(recipe("default"), step_batches=1) == ()
    [explores] = differences(recipe("default"), step_batches=2)
    assert "HDET explores on the training's 2 workers" in explores
    assert any("own gradients" in n for n in differences(recipe("local_gradients"), step_batches=2))
    alone = replace(equal, loss=replace(equal.loss, gather=False))
    [candidates] = differences(alone, step_batches=2)
    assert "own share of a batch's candidates" in candidates
