"""Print a benchmark's table and, last, its JSON line."""

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """Bound one figure.

    Attributes:
        figure: Name of the figure.
        op: "<=" or ">=".
        limit: The bound, as it was asked for.
    """

    figure: str
    op: str
    limit: float

    def is_met(self, figures: Mapping[str, float | None]) -> bool:
        """Return whether the figure was measured and keeps to the bound."""
        value = figures[self.figure]
        if value is None:
            return False
        return value <= self.limit if self.op == "<=" else value >= self.limit


def machine() -> dict[str, str | int]:
    """Return what the figures depend on."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 1,
        "memory_gib": round(memory_bytes / 2**30),
        "python": platform.python_version(),
    }


def print_result(
    bench: str,
    figures: Mapping[str, float | None],
    *,
    goals: tuple[Goal, ...],
    rows: tuple[str, ...] | None = None,
) -> bool:
    """Print one row per figure and the JSON line; return whether every goal is met.

    Args:
        bench: Name of the benchmark.
        figures: Everything that was measured, for the JSON line.
        goals: Bounds of some figures.
        rows: Figures that get a row; None for all of them.
    """
    bounds = {goal.figure: goal for goal in goals}
    for name in figures if rows is None else rows:
        value = figures[name]
        shown = "not measured" if value is None else f"{value:.4f}"
        goal = bounds.get(name)
        verdict = "" if goal is None else "met" if goal.is_met(figures) else "MISSED"
        bound = "" if goal is None else f"{goal.op} {goal.limit}"
        print(f"{name:<32} {shown:>14} {bound:>10} {verdict}")
    judged = [
        {"figure": g.figure, "op": g.op, "limit": g.limit, "met": g.is_met(figures)} for g in goals
    ]
    line = {"bench": bench, "machine": machine(), "figures": dict(figures), "goals": judged}
    print(json.dumps(line))
    return all(goal.is_met(figures) for goal in goals)
