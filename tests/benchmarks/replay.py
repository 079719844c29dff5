"""What would each ranker earn at the first position? Estimates from the log, beside the truth.

Rankers are trained on a simulated feed's first days and rank the requests of its last days, all
candidates scored at one position. Their contribution rate (here: clicks at position 1) is
estimated from the uniformly shuffled requests (replay) and from all requests by inverse
propensity; the planted truth says what they would really earn. Every seed is a feed and a fit of
its own; the estimates pool the seeds' users, and differences to attn_mvp are of the same requests.

Run: make bench BENCH=replay [ARGS="users seeds epochs"]
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from scipy.special import expit, logit
from scipy.stats import t as student

from ml.analysis.replay import (
    LoggedRequests,
    ReplayRate,
    inverse_propensity_rate,
    replay_rate,
)
from ml.features import FloatArray
from ml.ranking.logistic_regression import fit_and_score
from pipelines.sources.simulation.config import FeedConfig
from tests.benchmarks.feed_exam import feed_exam
from tests.benchmarks.replay_rankers import (
    BASE,
    at_one_position,
    explored,
    fitted,
    model_scores,
    sequence_recipes,
)
from tests.benchmarks.result_line import print_result

USERS, SEEDS, EPOCHS = 2_000, 3, 3
Scores = dict[str, FloatArray]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Outcome:
    """Hold a seed's log and what each ranker made of it.

    Attributes:
        log: The test days' requests.
        truth: Click probability of each row at the first position, [T].
        scores: Score of each row by ranker, [T] each.
    """

    log: LoggedRequests
    truth: FloatArray
    scores: Scores


def outcome(config: FeedConfig, *, seed: int, epochs: int) -> Outcome:
    """Train every ranker on a feed's first days and score its last ones."""
    days = config.days
    exam = feed_exam(config, validation_day=int(0.6 * days), test_day=int(0.7 * days))
    test = exam.splits["test"]
    log = LoggedRequests.of_targets(test, spec=exam.spec, contributions=("click",))
    place = test.position[test.is_target] - 1
    truth = expit(logit(test.true_probability[test.is_target]) + config.position_scale * place)
    regression = fit_and_score(
        exam.splits | {"test": at_one_position(test)},
        items=exam.items,
        spec=exam.spec,
        action="click",
    )
    noise = np.random.default_rng(seed).random(len(truth))
    scores = {"truth": truth, "random": noise, "logistic_regression": regression.probabilities}
    with TemporaryDirectory() as folder:
        for name, recipe in sequence_recipes().items():
            own = Path(folder) / name
            model = fitted(exam, recipe, seed=seed, epochs=epochs, folder=own)
            scores[name] = model_scores(model, test)
            if name == BASE:
                scores |= explored(model, exam)
    return Outcome(log=log, truth=truth, scores=scores)


def pooled(outcomes: list[Outcome]) -> Outcome:
    """Return all seeds as one log whose users differ from seed to seed."""
    step = 1 + max(int(o.log.user.max()) for o in outcomes)

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(o.log, name) for o in outcomes])

    names = ("request", "position", "contributed", "is_shuffled", "propensity")
    user = np.concatenate([o.log.user.astype(np.int64) + k * step for k, o in enumerate(outcomes)])
    return Outcome(
        log=LoggedRequests(user=user, **{name: joined(name) for name in names}),
        truth=np.concatenate([o.truth for o in outcomes]),
        scores={n: np.concatenate([o.scores[n] for o in outcomes]) for n in outcomes[0].scores},
    )


def earned(one: Outcome, name: str) -> float:
    """Return what a ranker would earn by the planted truth: its best candidates' mean."""
    order = np.lexsort((-one.scores[name], one.log.request, one.log.user))
    user, request = one.log.user[order], one.log.request[order]
    first = np.r_[True, (user[1:] != user[:-1]) | (request[1:] != request[:-1])]
    return float(one.truth[order][first].mean())


def mean_with_half_width(values: FloatArray) -> tuple[float, float]:
    """Return the mean over seeds and half of its 95% interval by Student's t; NaN for one seed."""
    if len(values) < 2:
        return float(values.mean()), float("nan")
    error = float(np.std(values, ddof=1)) / np.sqrt(len(values))
    return float(values.mean()), float(student.ppf(0.975, len(values) - 1) * error)


def measure(*, users: int, seeds: int, epochs: int) -> dict[str, float | None]:
    """Run every seed, print the table of all rankers; return its figures."""
    outcomes = []
    for seed in range(seeds):
        config = FeedConfig(users=users, seed=7 + seed)
        outcomes.append(outcome(config, seed=seed, epochs=epochs))
        print(f"seed {seed} is done", flush=True)
    return {"users": float(users), "seeds": float(seeds)} | table(outcomes)


def table(outcomes: list[Outcome]) -> dict[str, float | None]:
    """Print a row per ranker; return their figures."""
    whole = pooled(outcomes)
    print(
        f"{'ranker':<20} {'earns (truth)':>16} {'over attn_mvp':>18} {'replay, 95%':>24} "
        f"{'matches':>8} {'by propensity, 95%':>24} {'matches':>8}"
    )
    figures: dict[str, float | None] = {}
    base = np.array([earned(o, BASE) for o in outcomes])
    for name in whole.scores:
        real = np.array([earned(o, name) for o in outcomes])
        estimates = {
            "replay": replay_rate(whole.log, whole.scores[name]),
            "propensity": inverse_propensity_rate(whole.log, whole.scores[name]),
        }
        figures |= _figures(name, real, estimates)
        gain, half = mean_with_half_width(real - base)
        figures |= {f"{name}_gain": gain, f"{name}_gain_half_width": half}
        cells = [
            f"{e.rate.estimate:.4f} [{e.rate.low:.4f}, {e.rate.high:.4f}] {e.matches:>8.0f}"
            for e in estimates.values()
        ]
        middle, error = mean_with_half_width(real)
        print(
            f"{name:<20} {middle:>8.4f} ± {error:.4f} {gain:>+9.4f} ± {half:.4f}  "
            f"{cells[0]:>32} {cells[1]:>32}",
            flush=True,
        )
    return figures


def _figures(
    name: str, real: FloatArray, estimates: dict[str, ReplayRate]
) -> dict[str, float | None]:
    """Return a ranker's figures by name."""
    found: dict[str, float | None] = {f"{name}_earns": float(real.mean())}
    for kind, estimate in estimates.items():
        found[f"{name}_{kind}"] = estimate.rate.estimate
        found[f"{name}_{kind}_low"] = estimate.rate.low
        found[f"{name}_{kind}_high"] = estimate.rate.high
        found[f"{name}_{kind}_matches"] = estimate.matches
        found[f"{name}_{kind}_effective_matches"] = estimate.effective_matches
    return found


def main(arguments: list[str]) -> int:
    """Print the table and the JSON line; there is no goal to miss."""
    torch.set_num_threads(1)
    users, seeds, epochs = [int(a) for a in arguments] + [USERS, SEEDS, EPOCHS][len(arguments) :]
    figures = measure(users=users, seeds=seeds, epochs=epochs)
    return 0 if print_result("replay", figures, goals=(), rows=()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
