"""Configurations survive JSON, and wrong ones are refused by name."""

import pytest

from ml.configuration import from_dict, from_json, to_json
from ml.features import FeatureSpec
from ml.ranking.sequence_ranker.recipes import RECIPES, RankerConfig
from tests.ml.sequence_examples import feature_spec


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipes_survive_json(name: str) -> None:
    config = RECIPES[name]()
    assert from_json(RankerConfig, to_json(config)) == config


def test_tuples_and_missing_values_survive_json() -> None:
    spec = feature_spec()
    assert from_json(FeatureSpec, to_json(spec)) == spec
    assert isinstance(from_json(FeatureSpec, to_json(spec)).code_sizes, tuple)


def test_unknown_and_missing_fields_are_named() -> None:
    with pytest.raises(ValueError, match="no field 'wings'"):
        from_dict(FeatureSpec, {"wings": 2})
    with pytest.raises(ValueError, match="not a FeatureSpec"):
        from_dict(FeatureSpec, {"num_items": 2})
