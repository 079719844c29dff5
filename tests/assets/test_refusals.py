"""What an asset refuses before it writes: an unknown recipe, a log without one good row."""

from typing import TYPE_CHECKING

import pytest

from assets.training import RecipeConfig
from infra.errors import UserError
from infra.platform import Platform
from ml.ranking.sequence_ranker import recipes
from pipelines.tables import RAW_EVENTS, REJECTED_EVENTS

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import SparkSession


@pytest.fixture
def platform(tmp_path: "Path") -> Platform:
    return Platform(variables={"RANKLAKE_HOME": str(tmp_path), "RANKLAKE_PROFILE": "test"})


def test_wrong_recipe_is_named_beside_the_ones_there_are(platform: Platform) -> None:
    with pytest.raises(UserError, match=r"no ranker recipe 'huge'; choose one of .*'default'"):
        RecipeConfig(recipe="huge").resolve(recipes, platform=platform)


def test_profile_chooses_the_recipe_and_steps_can_be_limited(platform: Platform) -> None:
    name, recipe = RecipeConfig(max_steps=7).resolve(recipes, platform=platform)
    assert name == "toy"
    assert recipe.training.max_steps == 7
    assert recipe.model == recipes.toy().model


def test_numbers_of_a_recipe_can_be_replaced_by_path(platform: Platform) -> None:
    config = RecipeConfig(overrides={"training.learning_rate": 1e-4, "model.dropout_fraction": 0.2})
    _, recipe = config.resolve(recipes, platform=platform)
    assert (recipe.training.learning_rate, recipe.model.dropout_fraction) == (1e-4, 0.2)


def test_a_number_that_the_recipe_lacks_is_named_beside_those_it_has(platform: Platform) -> None:
    with pytest.raises(UserError, match=r"no field 'training.rate': .*choose one of.*'epochs'"):
        RecipeConfig(overrides={"training.rate": 1.0}).resolve(recipes, platform=platform)


def test_log_whose_every_row_is_rejected_is_refused_with_its_reasons(
    spark: "SparkSession",
) -> None:
    from assets.day_steps import refuse_if_nothing_is_kept

    rows = [("e1", None, "missing_user", "{}")] * 2 + [("e2", None, "missing_time", "{}")]
    rejected = spark.createDataFrame(rows, REJECTED_EVENTS.schema)
    nothing = spark.createDataFrame([], RAW_EVENTS.schema)
    with pytest.raises(UserError, match=r"missing_user 2, missing_time 1.*mapping"):
        refuse_if_nothing_is_kept(rejected, nothing)


def test_log_with_one_good_row_passes(spark: "SparkSession") -> None:
    from assets.day_steps import refuse_if_nothing_is_kept

    empty = spark.createDataFrame([], REJECTED_EVENTS.schema)
    kept = spark.range(1).toDF("event_id")
    refuse_if_nothing_is_kept(empty, kept)
