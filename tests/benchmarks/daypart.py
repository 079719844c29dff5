"""The daypart toy in full: which rotation finds a taste that depends on the half of the day?

1,000 steps of 128 users of AttnMVP, all rotations stepped in turn. NE on events 16 to 31: 0.469
with the taste known, 0.579 for the exact Bayes predictor from the history, 0.821 for a model that
cannot see when past events were. One seed.

Run: python -m tests.benchmarks.daypart [--steps N] [--rows N] [--rate R] [--threads N]
Source: siren-rope 1.8 (h).
"""

import sys

from tests.benchmarks.result_line import Goal, print_result
from tests.benchmarks.toy_race import race, toy_arguments
from tests.ml.planted_users import daypart_users

GOALS = (
    Goal(figure="ne_siren", op="<=", limit=0.65),
    Goal(figure="ne_ordinal", op=">=", limit=0.78),
)
VARIANTS = {
    "ordinal": {"rotation": "ordinal"},
    "time_offset": {"rotation": "time_offset"},
    "siren": {"rotation": "siren"},
    "siren_sin": {"rotation": "siren", "rotation_branches": "sin"},
    "siren_dnn": {"rotation": "siren", "rotation_branches": "dnn"},
}


def main() -> int:
    """Race the rotations."""
    training = toy_arguments("daypart", steps=1000, rows=128)
    figures = race(daypart_users, training, variants=VARIANTS)
    return 0 if print_result("daypart", figures, goals=GOALS) else 1


if __name__ == "__main__":
    sys.exit(main())
