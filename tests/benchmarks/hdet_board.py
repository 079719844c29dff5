"""Fit the cells that a ledger of the HDET bench lacks, one after the other, within a budget."""

import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ml.ranking.leaderboard.cells import TRIAL, Cell
from ml.ranking.leaderboard.ledger import Ledger
from tests.benchmarks.hdet_methods import FACTORS, SEARCH_RATES, Method
from tests.benchmarks.hdet_replicas import fit_replicas
from tests.benchmarks.hdet_single import SingleRun, fit_single
from tests.benchmarks.hdet_steps import Fit
from tests.benchmarks.hdet_task import Task

Line = dict[str, Any]
GUESSED_SECONDS = 15.0  # of a cell, before one was measured
_TRACED_SEED = 0  # one seed's replicas are drawn: the traces of all would be most of the ledger


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """Name one fit: a method from one rate with one seed.

    Attributes:
        method: The method.
        place: Place of the rate among the starts.
        rate: Peak of the rate.
        seed: Seed of everything random.
        cell: Its key in the ledger.
    """

    method: Method
    place: int
    rate: float
    seed: int
    cell: Cell


def starts_of(task: Task, methods: Sequence[Method], *, rates: Sequence[float]) -> list[Start]:
    """Return every fit, method by method in blocks of one seed of each.

    Args:
        task: Data and sizes.
        methods: The methods, the weightiest first.
        rates: Peak rate by place.
    """
    found = []
    for method in methods:
        states = {place: method.state(task.plan, rate=rates[place]) for place in method.starts}
        for seed in method.seeds:
            for place, state in states.items():
                cell = Cell(
                    kind=TRIAL,
                    recipe=method.name,
                    source=task.source,
                    seed=seed,
                    trial=place,
                    data=task.data,
                    modules=state,
                )
                found.append(
                    Start(method=method, place=place, rate=rates[place], seed=seed, cell=cell)
                )
    return found


def rates_of(best: float) -> list[float]:
    """Return the peak rates of a sweep around the best."""
    return [factor * best for factor in FACTORS]


def lines_of(ledger: Ledger, starts: Sequence[Start]) -> dict[Cell, Line]:
    """Return the lines of the fits that the ledger holds."""
    wanted = {start.cell for start in starts}
    found = {Cell.of(line): line for line in ledger.lines if line["kind"] == TRIAL}
    return {cell: line for cell, line in found.items() if cell in wanted}


def seconds_left(ledger: Ledger, starts: Sequence[Start]) -> float:
    """Return how long the missing fits will take by what the ledger says of their methods."""
    spent: dict[str, list[float]] = {}
    for line in lines_of(ledger, starts).values():
        spent.setdefault(line["recipe"], []).append(line["cell_seconds"])
    known = [second for seconds in spent.values() for second in seconds]
    other = sum(known) / len(known) if known else GUESSED_SECONDS
    return sum(
        sum(own) / len(own) if (own := spent.get(start.method.name)) else other
        for start in starts
        if not ledger.has(start.cell)
    )


def fit_missing(
    task: Task,
    ledger: Ledger,
    starts: Sequence[Start],
    *,
    split: str = "test",
    deadline: float | None = None,
) -> int:
    """Fit what is missing until nothing is, or time is over; return how many fits broke.

    A fit that raises is told and stays missing; the others go on.

    Args:
        task: Data and sizes.
        ledger: Where lines are looked up and added.
        starts: The fits, in their order.
        split: Split that is scored.
        deadline: Time of `time.monotonic` after which no fit begins; None for no bound.
    """
    broken = 0
    for start in starts:
        if ledger.has(start.cell):
            continue
        if deadline is not None and time.monotonic() >= deadline:
            break
        label = f"{task.source} {start.method.name} x{start.rate:.3g} seed {start.seed}"
        began = time.perf_counter()
        try:
            fit = run_start(task, start, split=split)
        except Exception:  # printed and counted; its cell stays missing, the others go on
            broken += 1
            print(f"{label} broke:\n{traceback.format_exc()}", file=sys.stderr, flush=True)
            continue
        seconds = time.perf_counter() - began
        line = ledger.append(start.cell.fields | _as_line(fit, start) | {"cell_seconds": seconds})
        print(f"{label}: {_brief(line)}, {seconds:.1f} s", flush=True)
    return broken


def run_start(task: Task, start: Start, *, split: str) -> Fit:
    """Train and score one fit."""
    method, rate, seed = start.method, start.rate, start.seed
    if isinstance(method.run, SingleRun):
        models, fit = fit_single(task, method.run, rate=rate, seed=seed)
    else:
        model, fit = fit_replicas(
            task, method.run, rate=rate, seed=seed, has_probe=method.has_probe
        )
        models = {"last": model}
    if fit.stopped is None:
        fit.entropies = {n: task.entropy(models[n], split=split) for n in method.scored}
    return fit


def best_rate(task: Task, ledger: Ledger, starts: Sequence[Start]) -> float:
    """Print the coarse search; return the rate of the lowest NE on validation.

    Raises:
        ValueError: If no fit of the search has ended with a finite NE.
    """
    found = {}
    for start in starts:
        line = lines_of(ledger, [start]).get(start.cell)
        entropy = None if line is None else line["entropies"].get("last")
        print(f"{task.source} search {start.rate:<8.3g} validation NE {entropy}")
        if entropy is not None:
            found[start.rate] = entropy
    if not found:
        raise ValueError(f"no rate of {SEARCH_RATES} gave a finite NE; search other rates")
    best = min(found, key=lambda rate: found[rate])
    print(f"{task.source}: lowest at {best:.3g}")
    return best


def _as_line(fit: Fit, start: Start) -> Line:
    traced = fit.trace if start.seed == _TRACED_SEED else fit.trace[-1:]
    return {
        "rate": start.rate,
        "entropies": fit.entropies,
        "stopped": fit.stopped,
        "steps": fit.steps,
        "cpu_seconds": fit.cpu_seconds,
        "probe_seconds": fit.probe_seconds,
        "trace": traced,
    }


def _brief(line: Line) -> str:
    if line["stopped"] is not None:
        return line["stopped"]
    return ", ".join(
        f"{name} NE " + ("not finite" if value is None else f"{value:.5f}")
        for name, value in line["entropies"].items()
    )
