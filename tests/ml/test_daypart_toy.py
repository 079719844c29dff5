"""The daypart toy: a taste per category and half of the day, which ordinal positions cannot see.

NE on positions 16-31: 0.579 for the exact Bayes predictor from the history, 0.821 for ordinal
rotary positions. Source: siren-rope 1.8 (h), in short form; the long one is the benchmark daypart.
"""

from tests.ml.planted_users import ToyTraining, daypart_users, late_entropy, trained

SHORT = ToyTraining(steps=160, rows=64)


def _late_entropy(rotation: str) -> float:
    model = trained(daypart_users, SHORT, rotation=rotation, scheme="attn_mvp_without_lfa")
    return late_entropy(model, daypart_users)


def test_siren_angles_find_the_half_of_the_day() -> None:
    assert _late_entropy("siren") <= 0.65


def test_ordinal_angles_do_not_find_it() -> None:
    assert 0.78 <= _late_entropy("ordinal") <= 0.95  # it learned what can be learned without
