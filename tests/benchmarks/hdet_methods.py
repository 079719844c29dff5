"""What the HDET bench compares: each method's training, starts and seeds, in order of weight."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from ml.ranking.leaderboard.modules import code_only, modules_hash
from ml.training.hdet.controller import HdetConfig
from tests.benchmarks.hdet_plan import Plan
from tests.benchmarks.hdet_single import SingleRun

FACTORS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
_BASE = FACTORS.index(1.0)
# From `--search`: the lowest validation NE with a seed that no other fit has. From 0.0005 to 0.032
# by twos, the simulated feed gave .8777 .8650 .8441 .8370 .8388 .8827 .9890 and KuaiRand
# .8936 .8925 .8904 .8932 .8970 .9005 .9209.
BEST_RATES = {"simulated": 4e-3, "kuairand": 2e-3}
SEARCH_RATES = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)
SEARCH_SEED = 1_000
SEEDS = (0, 1, 2, 3, 4)
FEWER = (0, 1, 2)

_ROOT = Path(__file__).parents[2]
# What every fit runs of the package, but for the modules that only hand these on.
RUN_BY_ALL = (
    "ml.batches",
    "ml.metrics",
    "ml.ranking.expectation",
    "ml.ranking.sequence_ranker.loss",
    "ml.ranking.sequence_ranker.model",
    "ml.ranking.sequence_ranker.score",
    "ml.training.flat",
    "ml.training.parameters",
)
_HANDS_ON = "ml.ranking.sequence_ranker.training"
# The bench's own code of a fit. The plan is left out: its numbers are in the key.
_ALL_CODE = (_HANDS_ON, "tests.benchmarks.hdet_steps", "tests.benchmarks.hdet_task")
SINGLE_CODE = (
    *_ALL_CODE,
    "tests.benchmarks.hdet_schedule_free",
    "tests.benchmarks.hdet_single",
)
REPLICAS_CODE = (*_ALL_CODE, "tests.benchmarks.hdet_replicas", "tests.ml.replica_threads")
_DIGITS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """Name one way to train.

    Attributes:
        name: Its name in tables and keys.
        run: The schedule of a single run, or what HDET's scheduler is given.
        has_probe: Whether HDET's controller looks at probes.
        starts: Places in `FACTORS` that are tried.
        seeds: Seeds of each start.
        scored: Which weights are scored.
    """

    name: str
    run: SingleRun | HdetConfig
    has_probe: bool = False
    starts: tuple[int, ...] = tuple(range(len(FACTORS)))
    seeds: tuple[int, ...] = SEEDS
    scored: tuple[str, ...] = ("last",)

    @property
    def is_hdet(self) -> bool:
        """Return whether replicas with different rates are compared or averaged."""
        return isinstance(self.run, HdetConfig) and self.run.spread_fraction > 0

    @property
    def rows(self) -> dict[str, str]:
        """Return the name of a table's row for everything that is scored."""
        return {s: self.name if s == "last" else f"{self.name}_{s}" for s in self.scored}

    def state(self, plan: Plan, *, rate: float) -> str:
        """Return a hash of all code and all numbers that decide a fit's result.

        Args:
            plan: Sizes.
            rate: Peak of the rate at this start.
        """
        if isinstance(self.run, SingleRun):
            bench, engine, own = SINGLE_CODE, (), self.run.steps(plan)
        else:
            bench, engine, own = REPLICAS_CODE, ("ml.training.hdet.scheduler",), None
        code = [modules_hash(module, root=_ROOT) for module in (*RUN_BY_ALL, *engine)]
        for module in bench:
            path = _ROOT.joinpath(*module.split(".")).with_suffix(".py")
            code.append(code_only(path.read_text()))
        probe = plan.probe_events if self.has_probe else None
        numbers = plan.description, self.run, own, probe, self.scored, rate
        return hashlib.sha256(repr((code, numbers)).encode()).hexdigest()[:_DIGITS]


def methods(plan: Plan) -> list[Method]:
    """Return all methods, those that the goals are about first.

    Starts that only show how other methods take a wrong rate, and the published variant, have
    three seeds.
    """
    own = HdetConfig(
        spread_fraction=plan.spread_fraction,
        sync_steps=plan.sync_steps,
        gain=plan.gain,
        momentum_fraction=plan.momentum_fraction,
        significance=plan.significance,
    )
    local = replace(own, gradient_sync="local")
    published = HdetConfig(  # hdet 2.2: its values, with window losses and no extra decay
        sync_steps=plan.sync_steps, update="additive", sigma=0.1
    )
    silent, local_sgd = replace(own, auto_lr=False), replace(local, auto_lr=False)
    found = [
        Method(name="one_cycle", run=SingleRun(schedule="one_cycle")),
        Method(name="hdet_shared_auto", run=own, has_probe=True),
        Method(name="hdet_local_auto", run=local, has_probe=True),
        Method(name="one_cycle_longer", run=SingleRun(schedule="one_cycle", is_longer=True)),
        Method(name="hdet_shared", run=silent),
        Method(name="hdet_local", run=local_sgd),
    ]
    baselines = [
        Method(name="local_sgd", run=replace(local_sgd, spread_fraction=0.0)),
        Method(name="cosine", run=SingleRun(schedule="cosine")),
        Method(name="constant", run=SingleRun(schedule="constant"), scored=("last", "ema", "swa")),
        Method(name="schedule_free", run=SingleRun(schedule="schedule_free")),
    ]
    others = tuple(place for place in range(len(FACTORS)) if place != _BASE)
    found += [replace(method, starts=(_BASE,)) for method in baselines]
    found.append(Method(name="hdet_published", run=published, seeds=FEWER))
    return found + [replace(method, starts=others, seeds=FEWER) for method in baselines]


def search_method() -> Method:
    """Return the coarse search for the best rate: a one-cycle, judged on validation."""
    return Method(name="coarse_search", run=SingleRun(schedule="one_cycle"), seeds=(SEARCH_SEED,))
