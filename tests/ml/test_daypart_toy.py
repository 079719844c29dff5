"""The daypart toy: a taste per category and half of the day, which ordinal positions cannot see.

NE on positions 16-31: 0.579 for the exact Bayes predictor from the history, 0.821 for ordinal
rotary positions. Source: siren-rope 1.8 (h), in short form; the long one is the benchmark daypart.
"""

import pytest

from tests.ml.planted_users import ToyTraining, daypart_users, late_entropy, trained

SHORT = ToyTraining(steps=160, rows=64)


def _late_entropy(rotation: str) -> float:
    return late_entropy(trained(daypart_users, SHORT, rotation=rotation), daypart_users)


def test_siren_angles_find_the_half_of_the_day() -> None:
    assert _late_entropy("siren") <= 0.65


@pytest.mark.parametrize("rotation", ["ordinal"])
def test_other_angles_see_no_half_of_the_day(rotation: str) -> None:
    assert _late_entropy(rotation) >= 0.78
