"""The dog and cat toy: a taste per category that only past actions reveal.

The exact Bayes predictor from the history has NE 0.4956 on positions 16-31, a model without
actions 1.0. Source: attn-lfa-mvp 3.6, in short form; the long one is the benchmark dog-cat.
"""

import pytest

from tests.ml.planted_users import ToyTraining, dog_cat_users, late_entropy, trained

SHORT = ToyTraining(steps=160, rows=64)


# Outcomes are alone where the paper has them so, but for interleaved rows, which then stay on a
# plateau (rate per user, not per category) for longer than a test may last.
CASES = [
    ("attn_mvp", "alone"),
    ("attn_mvp", "with_item"),
    ("attn_mvp_without_lfa", "alone"),
    ("attn_lfa", "alone"),
    ("interleaved", "with_item"),
]


@pytest.mark.parametrize(("scheme", "outcomes"), CASES)
def test_models_with_actions_reach_the_bayes_limit(scheme: str, outcomes: str) -> None:
    model = trained(dog_cat_users, SHORT, scheme=scheme, outcomes=outcomes)
    assert late_entropy(model, dog_cat_users) <= 0.53


def test_a_model_without_actions_learns_nothing() -> None:
    model = trained(dog_cat_users, SHORT, scheme="no_action", outcomes="alone")
    assert late_entropy(model, dog_cat_users) >= 0.98
