"""The dog and cat toy in full: does each scheme find the taste, and in what time?

600 steps of 128 users, all schemes stepped in turn so that a machine that slows down slows all.
NE on events 16 to 31: 0.469 with the taste known, 0.4956 for the exact Bayes predictor from the
history, 1 for the base rate. One seed. `floor` is what the time could be if only products counted
(rankers_flops.py): with two layers of width 32 the final pooling, the encoders and the head weigh
much, so that 0.6 lies below the floor of the schemes with a pooling.

Run: python -m tests.benchmarks.dog_cat [--steps N] [--rows N] [--rate R] [--threads N]
Source: attn-lfa-mvp 3.6.
"""

import sys

from ml.ranking.sequence_ranker.config import SCHEMES
from tests.benchmarks.rankers_flops import Size, floor_ratio
from tests.benchmarks.result_line import Goal, print_result
from tests.benchmarks.toy_race import race, toy_arguments
from tests.ml.planted_users import EVENTS, dog_cat_users

WITH_ACTIONS = ("attn_mvp", "attn_mvp_without_lfa", "attn_lfa", "interleaved")
SIZE = Size(width=32, layers=2, heads=2, head_width=32, num_actions=1)
GOALS = (
    *(Goal(figure=f"ne_{scheme}", op="<=", limit=0.53) for scheme in WITH_ACTIONS),
    Goal(figure="ne_no_action", op=">=", limit=0.98),
    *(Goal(figure=f"time_{scheme}", op="<=", limit=0.6) for scheme in WITH_ACTIONS[:3]),
)


def main() -> int:
    """Race the schemes; times are over the interleaved model's."""
    training = toy_arguments("dog-cat", steps=600, rows=128)
    figures = race(dog_cat_users, training, variants={name: {"scheme": name} for name in SCHEMES})
    first = figures["seconds_interleaved"]
    for scheme in WITH_ACTIONS[:3]:
        figures[f"time_{scheme}"] = figures[f"seconds_{scheme}"] / first
        figures[f"floor_{scheme}"] = floor_ratio(scheme, SIZE, events=EVENTS)
    return 0 if print_result("dog-cat", figures, goals=GOALS) else 1


if __name__ == "__main__":
    sys.exit(main())
