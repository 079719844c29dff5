"""Does training on new days only replace a cold start? Entropy and cost, with the Fisher prior.

A ranker starts cold on a simulated feed up to a week before day T and then takes in seven days,
one training each: the loss is of the day's events, everything older is input. It goes freely
("naive") or is held near older weights by a Fisher prior, "fisher_<alpha>_<lambda>". Beside it
stand a cold start on all days up to T and the week-old ranker as it was ("stale"). All are judged
on the clicks of the days after T: the prior is chosen on the first two, the test is on the rest.
Costs are of the one training that ends at T, an update's with the Fisher information of its day.

Run: make bench BENCH=incremental [ARGS="users seeds epochs"]
"""

import sys
from collections.abc import Mapping

import numpy as np
import torch

from ml.bootstrap import Interval, entropy_difference_interval
from ml.features import FloatArray, IntArray
from ml.metrics import normalized_entropy
from pipelines.sources.simulation.config import FeedConfig
from tests.benchmarks.feed_exam import feed_exam
from tests.benchmarks.incremental_course import TRAIN_DAYS, WAYS, Result, Way, course
from tests.benchmarks.result_line import Goal, print_result

USERS, SEEDS, EPOCHS = 1_000, 3, 3
VALIDATION_DAYS = 2
# What the paper claims: 96% less time per training, at no worse quality.
GOALS = (
    Goal(figure="chosen_saved_fraction", op=">=", limit=0.96),
    Goal(figure="chosen_ne_difference", op="<=", limit=0.0),
)


class Judged:
    """The results of all seeds with the labels that they are held to."""

    def __init__(self, ways: Mapping[str, Way]) -> None:
        """Start without a seed."""
        self.ways = ways
        self.results: list[dict[str, Result]] = []
        self._labels: list[dict[str, IntArray]] = []
        self._users: list[IntArray] = []

    def add(self, seed: int, *, users: int, epochs: int) -> None:
        """Run a seed: a feed and fits of its own."""
        exam = feed_exam(
            FeedConfig(users=users, seed=7 + seed),
            validation_day=TRAIN_DAYS,
            test_day=TRAIN_DAYS + VALIDATION_DAYS,
        )
        self.results.append(course(exam, seed=seed, epochs=epochs, ways=self.ways))
        print(f"seed {seed} is done", flush=True)
        splits = {name: exam.splits[name] for name in ("validation", "test")}
        self._labels.append({n: data.labels(0)[data.is_target] for n, data in splits.items()})
        test = splits["test"]
        self._users.append(test.user[test.event_row][test.is_target] + seed * (users + 1))

    def entropy(self, name: str, *, split: str) -> float:
        """Return the mean over seeds of a way's normalised entropy on a split."""
        pairs = zip(self.results, self._labels, strict=True)
        return float(
            np.mean([normalized_entropy(y[split], getattr(r[name], split)) for r, y in pairs])
        )

    def difference(self, name: str, *, to: str) -> Interval:
        """Return the pooled test entropy less another way's, bootstrapped by user."""
        labels = np.concatenate([own["test"] for own in self._labels])
        return entropy_difference_interval(
            np.concatenate(self._users), labels, self._test(name), self._test(to)
        )

    def seconds(self, name: str, *, kind: str) -> float:
        """Return the mean over seeds of the training that ends at T, "wall" or "cpu"."""
        return float(np.mean([getattr(r[name].cost, kind) for r in self.results]))

    def _test(self, name: str) -> FloatArray:
        return np.concatenate([own[name].test for own in self.results])


def measure(
    *, users: int, seeds: int, epochs: int, ways: Mapping[str, Way] = WAYS
) -> dict[str, float | None]:
    """Print the table of all ways; return its figures."""
    torch.optim.AdamW([torch.zeros(1)])  # imports for seconds once: not the first training's cost
    judged = Judged(ways)
    for seed in range(seeds):
        judged.add(seed, users=users, epochs=epochs)
    figures: dict[str, float | None] = {"users": float(users), "seeds": float(seeds)}
    print(
        f"{'way':<14} {'validation':>10} {'test NE':>8} {'less the cold one, 95%':>30} "
        f"{'wall s':>8} {'cpu s':>8} {'saved':>7}"
    )
    for name in ("cold", "stale", *ways):
        figures |= _row(judged, name)
    chosen = min(
        (name for name in ways if name != "naive"),
        key=lambda name: judged.entropy(name, split="validation"),
    )
    gap = judged.difference(chosen, to="naive")
    print(
        f"chosen on validation: {chosen}; its test NE less naive's: "
        f"{gap.estimate:+.5f} [{gap.low:+.5f}, {gap.high:+.5f}]"
    )
    figures["chosen_less_naive"] = gap.estimate
    figures["cold_anchor_cpu_seconds"] = judged.seconds("stale", kind="cpu")
    print(f"the cold start's Fisher information: {figures['cold_anchor_cpu_seconds']:.2f} cpu s")
    for part in ("ne_test", "ne_difference", "saved_fraction"):
        figures[f"chosen_{part}"] = figures[f"{chosen}_{part}"]
    return figures


def _row(judged: Judged, name: str) -> dict[str, float | None]:
    """Print a way's row; return its figures."""
    gap = judged.difference(name, to="cold")
    validation, test = (judged.entropy(name, split=split) for split in ("validation", "test"))
    found: dict[str, float | None] = {
        f"{name}_ne_validation": validation,
        f"{name}_ne_test": test,
        f"{name}_ne_difference": gap.estimate,
        f"{name}_ne_difference_low": gap.low,
        f"{name}_ne_difference_high": gap.high,
    }
    costs = ""
    if name != "stale":
        wall, cpu = (judged.seconds(name, kind=kind) for kind in ("wall", "cpu"))
        saved = 1 - cpu / judged.seconds("cold", kind="cpu")
        costs = f" {wall:>8.2f} {cpu:>8.2f} {saved:>7.1%}"
        found |= {f"{name}_wall_seconds": wall, f"{name}_cpu_seconds": cpu}
        found[f"{name}_saved_fraction"] = saved
    print(
        f"{name:<14} {validation:>10.5f} {test:>8.5f} "
        f"{gap.estimate:>+11.5f} [{gap.low:+.5f}, {gap.high:+.5f}]{costs}",
        flush=True,
    )
    return found


def main(arguments: list[str]) -> int:
    """Print the table; return 0 if the paper's claims hold here."""
    torch.set_num_threads(1)
    users, seeds, epochs = [int(a) for a in arguments] + [USERS, SEEDS, EPOCHS][len(arguments) :]
    figures = measure(users=users, seeds=seeds, epochs=epochs)
    rows = ("chosen_saved_fraction", "chosen_ne_difference")
    return 0 if print_result("incremental", figures, goals=GOALS, rows=rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
