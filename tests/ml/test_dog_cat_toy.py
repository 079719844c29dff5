"""The dog and cat toy: a taste per category that only past actions reveal.

The exact Bayes predictor from the history has NE 0.4956 on positions 16-31, a model without
actions 1.0. Source: attn-lfa-mvp 3.6, in short form; the long one is the benchmark dog-cat.
"""

import pytest

from tests.ml.planted_users import ToyTraining, dog_cat_users, late_entropy, trained

SHORT = ToyTraining(steps=160, rows=64)


def _late_entropy(scheme: str) -> float:
    return late_entropy(trained(dog_cat_users, SHORT, scheme=scheme), dog_cat_users)


@pytest.mark.parametrize("scheme", ["attn_mvp", "attn_mvp_without_lfa", "attn_lfa", "interleaved"])
def test_models_with_actions_reach_the_bayes_limit(scheme: str) -> None:
    assert _late_entropy(scheme) <= 0.53


def test_a_model_without_actions_learns_nothing() -> None:
    assert _late_entropy("no_action") >= 0.98
