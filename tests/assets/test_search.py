"""The search asset: what it refuses before anything is prepared, and what its trials are told."""

from pathlib import Path
from typing import Any

import pytest

from assets.search import RecipeSearchConfig, search_plan
from infra.errors import UserError
from infra.platform import Platform


def test_trials_step_on_the_batches_of_the_trainings_workers(tmp_path: Path) -> None:
    platform = _platform(tmp_path, RANKLAKE_WORKERS="3")
    config = RecipeSearchConfig(model="retriever", fields=["training.learning_rate=1e-4:1e-2"])
    plan = search_plan(platform, config)
    assert plan.step_batches == 3
    assert [(each.field, each.low, each.high) for each in plan.space] == [
        ("training.learning_rate", 1e-4, 1e-2)
    ]
    assert search_plan(_platform(tmp_path), RecipeSearchConfig()).step_batches == 2


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"recipe": "fully_sharded"}, "training.sharding = 'full' cannot be searched"),
        ({"method": "grid"}, "method must be one of"),
        ({"method": "population", "trials": 1}, "a population search needs at least 2 trials"),
        ({"trials": 0}, "a random search needs at least 1 trials"),
        ({"fields": ["training.rate"]}, "no field 'training.rate'"),
        ({"recipe": "toy", "method": "population"}, "trains for one; choose a RECIPE of more"),
    ],
)
def test_refuses_before_anything_is_prepared(
    chosen: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        search_plan(_platform(tmp_path), RecipeSearchConfig(model="retriever", **chosen))
    assert list(tmp_path.iterdir()) == []


def _platform(home: Path, **variables: str) -> Platform:
    return Platform(variables={"RANKLAKE_HOME": str(home), **variables})
