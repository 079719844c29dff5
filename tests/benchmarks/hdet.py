"""Does HDET help? Its methods beside a one-cycle sweep and other ways to do without a good rate.

AttnMVP of half its width is trained on the exam of the leaderboard, by every method from seven
peak rates, 1/8 to 8 times the best of a coarse search, with equal steps and equal examples: HDET
trains four replicas on a quarter of each batch, all others one model on the whole. What its
probes cost (an eighth of the compute) is given to a second sweep, `one_cycle_longer`, as further
steps; HDET is held to the better of both. Sizes are in `hdet_plan.py`, fixed beforehand; methods,
rates and seeds in `hdet_methods.py`. Seeds are paired: the same weights at first, the same order
of the data. NE is of the primary action on the test split; no method sees it, but the sweep's best
rate is chosen on it, in the sweep's favour.

A start counts as diverged if the loss or the NE is not finite, if the scheduler gives up, or at an
NE above 1.05; it counts as missed, and is listed with the rule. Fits are kept in a ledger beside
this file and never repeated for the same data, code and numbers; the call can be stopped at any
time. The cost of a converge is timed last, on two real processes.

Run: make bench BENCH=hdet [BUDGET_MINUTES=60]
     [ARGS="--sources simulated kuairand --search --methods ... --seeds 5 --plots FOLDER"]
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from infra.errors import UserError
from infra.settings import Settings
from ml.ranking.leaderboard.ledger import Ledger
from tests.benchmarks.hdet_board import (
    best_rate,
    fit_missing,
    lines_of,
    rates_of,
    seconds_left,
    starts_of,
)
from tests.benchmarks.hdet_converge import ConvergeTiming, converge_figures
from tests.benchmarks.hdet_methods import (
    BEST_RATES,
    FACTORS,
    SEARCH_RATES,
    Method,
    methods,
    search_method,
)
from tests.benchmarks.hdet_plan import Plan
from tests.benchmarks.hdet_plots import draw_traces
from tests.benchmarks.hdet_table import (
    CONVERGE_GOAL,
    figures_of,
    print_table,
    rows_of,
    source_goals,
)
from tests.benchmarks.hdet_task import Task
from tests.benchmarks.result_line import print_result

LEDGERS = Path(__file__).parent / "hdet"


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """Say where one call reads and writes, and how long it may fit.

    Attributes:
        ledgers: Folder of the ledgers.
        plots: Folder of the pictures.
        deadline: Time of `time.monotonic` after which no fit begins; None for no bound.
    """

    ledgers: Path
    plots: Path
    deadline: float | None = None

    def ledger(self, source: str) -> Ledger:
        """Open the ledger of a source."""
        return Ledger(self.ledgers / f"{source}.jsonl")


def measure(
    task: Task, session: Session, *, compared: list[Method], best: float
) -> dict[str, float | None]:
    """Fit what is missing on one source, print its table and draw; return the figures.

    Args:
        task: The source's data and the sizes.
        session: Folders and time.
        compared: The methods.
        best: The rate that the sweep is around.
    """
    ledger, source = session.ledger(task.source), task.source
    starts = starts_of(task, compared, rates=rates_of(best))
    broken = fit_missing(task, ledger, starts, deadline=session.deadline)
    lines = lines_of(ledger, starts)
    rows = rows_of(starts, lines)
    print_table(source, rows)
    for path in draw_traces(starts, lines, folder=session.plots):
        print(f"learning rates: {path}")
    probed = [line for line in lines.values() if line["probe_seconds"]]
    measured = [line["probe_seconds"] / line["cpu_seconds"] for line in probed]
    return figures_of(source, rows) | {
        f"{source}_fits": float(len(lines)),
        f"{source}_fits_missing": float(len(starts) - len(lines)),
        f"{source}_fits_broken": float(broken),
        f"{source}_probe_fraction_measured": sum(measured) / len(measured) if measured else None,
    }


def print_plan(tasks: list[Task], session: Session, *, compared: list[Method]) -> None:
    """Print what was fixed beforehand, and how long the missing fits will take on one core."""
    plan = tasks[0].plan
    print(
        f"{plan.steps} steps, T {plan.sync_steps}, alpha {plan.spread_fraction:.3f}, lambda "
        f"{plan.gain:g}: lambda alpha K = {plan.reach:.1f}; probes {plan.probe_fraction:.1%} of "
        f"the compute, one_cycle_longer {plan.longer_steps} steps"
    )
    for task in tasks:
        ledger = session.ledger(task.source)
        starts = starts_of(task, compared, rates=rates_of(BEST_RATES[task.source]))
        missing = sum(not ledger.has(start.cell) for start in starts)
        minutes = seconds_left(ledger, starts) / 60
        print(
            f"{task.source}: {missing} of {len(starts)} fits to do, about {minutes:.0f} minutes",
            flush=True,
        )


def search(task: Task, session: Session) -> float:
    """Fit the coarse search on validation; print and return the best rate."""
    ledger = session.ledger(task.source)
    starts = starts_of(task, [search_method()], rates=SEARCH_RATES)
    fit_missing(task, ledger, starts, split="validation", deadline=session.deadline)
    return best_rate(task, ledger, starts)


def exam_folder(source: str) -> Path:
    """Return where `make leaderboard` keeps an exam; its simulated feed has a home of its own."""
    settings = Settings.from_env({**os.environ, "RANKLAKE_SOURCE": source})
    if source == "simulated" and settings.feed_users is None:
        settings = replace(settings, home=settings.home / "leaderboard")
    return settings.ray_folder / "leaderboard"


def chosen_methods(plan: Plan, *, names: list[str] | None, seeds: int | None) -> list[Method]:
    """Return the methods of these names, all without names, with at most so many seeds.

    Raises:
        ValueError: If a name is unknown.
    """
    found = methods(plan)
    known = dict.fromkeys(method.name for method in found)
    if unknown := [name for name in names or () if name not in known]:
        raise ValueError(f"no method {', '.join(unknown)}; choose of {', '.join(known)}")
    kept = [method for method in found if names is None or method.name in names]
    return [replace(method, seeds=method.seeds[:seeds]) for method in kept]


def _arguments(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="hdet")
    parser.add_argument("--sources", nargs="+", choices=tuple(BEST_RATES), default=list(BEST_RATES))
    parser.add_argument("--methods", nargs="+", help="these methods only")
    parser.add_argument("--seeds", type=int, help="at most so many seeds of each method")
    parser.add_argument("--search", action="store_true", help="search the best rate, fit no method")
    parser.add_argument("--budget-minutes", type=float, help="no fit begins after so many")
    parser.add_argument("--exam", type=Path, help="the exam's folder, if one source is named")
    parser.add_argument("--ledgers", type=Path, default=LEDGERS)
    parser.add_argument("--plots", type=Path, help="folder of the pictures")
    parser.add_argument("--no-converge", action="store_true", help="do not time the converge")
    chosen = parser.parse_args(arguments)
    if chosen.exam is not None and len(chosen.sources) > 1:
        parser.error("--exam is of one source: name it by --sources")
    return chosen


def main(arguments: list[str]) -> int:
    """Fit, print the tables and the JSON line; return 0 if every goal is met, 2 on bad input."""
    chosen = _arguments(arguments)
    try:
        return _run(chosen)
    except (FileNotFoundError, UserError, ValueError) as error:
        print(f"ranklake: {error}", file=sys.stderr)
        return 2


def _run(chosen: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    plan = Plan()
    compared = chosen_methods(plan, names=chosen.methods, seeds=chosen.seeds)
    folders = {source: chosen.exam or exam_folder(source) for source in chosen.sources}
    tasks = [Task.load(source, folder, plan=plan) for source, folder in folders.items()]
    session = Session(
        ledgers=chosen.ledgers, plots=chosen.plots or Settings.from_env().home / "bench" / "hdet"
    )
    budget = None if chosen.budget_minutes is None else 60 * chosen.budget_minutes
    if chosen.search:
        for task, own in zip(tasks, _sessions(session, len(tasks), budget), strict=True):
            search(task, own)
        return 0
    print_plan(tasks, session, compared=compared)
    goals = tuple(goal for source in BEST_RATES for goal in source_goals(source))
    figures: dict[str, float | None] = {goal.figure: None for goal in (*goals, CONVERGE_GOAL)}
    for task, own in zip(tasks, _sessions(session, len(tasks), budget), strict=True):
        figures |= measure(task, own, compared=compared, best=BEST_RATES[task.source])
    if not chosen.no_converge:
        figures |= converge_figures(ConvergeTiming(folder=folders[chosen.sources[0]]))
    rows = tuple(name for name in figures if not name.endswith(_IN_THE_TABLE))
    is_met = print_result("hdet", figures, goals=(*goals, CONVERGE_GOAL), rows=rows)
    return 0 if is_met else 1


def _sessions(session: Session, number: int, budget: float | None) -> Iterator[Session]:
    """Yield a session for each source; one may take an even share of what the last ones left."""
    ends = None if budget is None else time.monotonic() + budget
    for place in range(number):
        now = time.monotonic()
        share = None if ends is None else now + (ends - now) / (number - place)
        yield replace(session, deadline=share)


# Figures of single starts stand in the tables already.
_IN_THE_TABLE = tuple(
    f"_x{factor:g}_{part}"
    for factor in FACTORS
    for part in ("ne", "diverged", "difference", "half_width")
)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
