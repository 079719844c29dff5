"""Read a ledger as one table: every recipe of a leaderboard, measured, failed or missing."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ml.ranking.contenders import NUM_TRIALS
from ml.ranking.leaderboard.cells import COMPARISON, FAILED, SUMMARY, TEST, TRIAL, Cell, Line
from ml.ranking.leaderboard.comparison import claims_of
from ml.ranking.leaderboard.holm import holm
from ml.ranking.leaderboard.ledger import Ledger
from ml.ranking.leaderboard.plan import (
    BoardConfig,
    best_on_validation,
    chosen_trial,
    failures,
    validation_entropies,
)
from ml.ranking.leaderboard.recipes import CLASSICAL, RECIPES
from ml.ranking.leaderboard.scores import METRICS

LEVEL = 0.05
GOAL_CLOSED, GOAL_HOURS = 0.90, 3.0
COMPLETE, PARTIAL, FAILED_STATE = "complete", "missing", "failed"
_COSTS = ("num_parameters", "train_seconds", "epochs", "score_seconds_per_1000", "peak_bytes")


@dataclass(frozen=True, kw_only=True, slots=True)
class Board:
    """Hold a leaderboard's result.

    Attributes:
        config: What was asked for.
        counts: Users, target events and cells.
        rival: The best classical baseline on validation, or None before it is known.
        recipes: What is known of each recipe, in the list's order.
        claims: What is claimed, and whether it holds after Holm's correction.
        figures: Headline numbers; None where one could not be measured.
        goals: Bounds of figures, and whether they are met.
    """

    config: BoardConfig
    counts: dict[str, int]
    rival: str | None
    recipes: dict[str, dict[str, Any]]
    claims: list[dict[str, Any]]
    figures: dict[str, float | None]
    goals: list[dict[str, Any]]

    @property
    def ranking(self) -> list[str]:
        """Return the recipes by rising NE on test, those without one last."""
        found = {name: self.entropy(name) for name in self.recipes}
        return sorted(found, key=lambda name: (found[name] is None, found[name] or 0.0))

    def entropy(self, recipe: str) -> float | None:
        """Return the primary NE of a recipe on test over all seeds."""
        action = self.recipes[recipe]["actions"].get(self.config.primary, {})
        return action.get("ne") if self.recipes[recipe]["state"] == COMPLETE else None

    def as_result(self) -> dict[str, Any]:
        """Return plain values for the report."""
        return {**asdict(self), "ranking": self.ranking}


def build_board(
    config: BoardConfig, ledger: Ledger, *, counts: Mapping[str, int], at_once: int
) -> Board:
    """Return the table of what a ledger holds for a leaderboard.

    Args:
        config: The leaderboard.
        ledger: Its lines; those of other data or other code are left out.
        counts: Users and target events of the test split.
        at_once: Cells that run at a time, for the hours of the whole source.
    """
    lines = [line for line in ledger.lines if config.holds(line)]
    failed = failures(config, ledger)
    recipes: dict[str, dict[str, Any]] = {
        name: _recipe(config, ledger, [each for each in lines if each["recipe"] == name], name=name)
        | {"error": failed.get(name)}
        for name in config.recipes
    }
    for found in recipes.values():
        if found["error"] is not None and found["state"] != COMPLETE:
            found["state"] = FAILED_STATE
    per_recipe = NUM_TRIALS + len(config.seeds)
    done = sum(found["cells_done"] for found in recipes.values())
    others = sum(
        each["source"] == config.source and not config.holds(each) for each in ledger.lines
    )
    cells = {"cells": per_recipe * len(recipes), "cells_done": done, "other_lines": others}
    claims = _claims(config, ledger, lines)
    figures = _figures(config, recipes, lines, at_once=at_once)
    return Board(
        config=config,
        counts={**counts, **cells},
        rival=best_on_validation(config, ledger, CLASSICAL),
        recipes=recipes,
        claims=claims,
        figures=figures,
        goals=_goals(figures),
    )


def _recipe(config: BoardConfig, ledger: Ledger, lines: list[Line], *, name: str) -> dict[str, Any]:
    tests = [line for line in lines if line["kind"] == TEST and line["seed"] in config.seeds]
    trials = [line for line in lines if line["kind"] == TRIAL]
    summary = next((each for each in lines if each["kind"] == SUMMARY and _seeds(config, each)), {})
    trial = chosen_trial(config, ledger, name)
    entropies = validation_entropies(config, ledger, name)
    complete = len(tests) == len(config.seeds)
    return {
        "state": COMPLETE if complete else PARTIAL,
        "cells_done": len(tests) + len(trials),
        "cells": NUM_TRIALS + len(config.seeds),
        "trial": None if trial is None else RECIPES[name].trials[trial],
        "validation_ne": None if trial is None else entropies.get(trial),
        "actions": _actions(tests, summary),
        "slices": _means([line["slices"] for line in tests]),
        "closed": summary.get("closed"),
        **{cost: _mean([line[cost] for line in tests]) for cost in _COSTS},
    }


def _seeds(config: BoardConfig, line: Line) -> bool:
    return line["seeds"] == list(config.seeds)


def _actions(tests: list[Line], summary: Line) -> dict[str, dict[str, Any]]:
    """Return the mean metrics of each action, with the interval of its NE."""
    found = _means([line["test"] for line in tests])
    for name, interval in summary.get("ne", {}).items():
        found[name] |= {"low": interval["low"], "high": interval["high"]}
    return found


def _means(scores: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the means over seeds of what each name was scored."""
    return {
        name: {
            **{key: first[key] for key in ("rows", "positives", "too_few")},
            **{metric: _mean([each[name].get(metric) for each in scores]) for metric in METRICS},
        }
        for name, first in (scores[0] if scores else {}).items()
    }


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def _claims(config: BoardConfig, ledger: Ledger, lines: list[Line]) -> list[dict[str, Any]]:
    """Return each claim with its difference; one that is not measured counts as p = 1."""
    rows = []
    for claim in claims_of(config, ledger):
        assert claim.rival is not None
        line = next((each for each in lines if _is_of(config, each, claim.recipe, claim.rival)), {})
        values = {name: line.get(name) for name in ("value", "low", "high", "p")}
        rows.append({**asdict(claim), **values})
    p_values = {str(place): 1.0 if r["p"] is None else r["p"] for place, r in enumerate(rows)}
    for place, adjusted in holm(p_values).items():
        row = rows[int(place)]
        row["holm"] = None if row["p"] is None else adjusted
        row["verdict"] = _verdict(row)
    return rows


def _is_of(config: BoardConfig, line: Line, recipe: str, rival: str) -> bool:
    if line["kind"] != COMPARISON or not _seeds(config, line):
        return False
    sides = (line["recipe"], line["rival"], line["rival_modules"])
    return sides == (recipe, rival, config.recipes[rival])


def _verdict(row: Mapping[str, Any]) -> str:
    """Say what a claim came to: both the corrected test and the interval must agree."""
    if row["p"] is None:
        return "missing"
    if row["holm"] > LEVEL or row["low"] <= 0 <= row["high"]:
        return "not shown"
    return "holds" if row["value"] < 0 else "the opposite holds"


def _figures(
    config: BoardConfig,
    recipes: Mapping[str, dict[str, Any]],
    lines: list[Line],
    *,
    at_once: int,
) -> dict[str, float | None]:
    """Return the headline numbers; the best ranker is the one that is best on validation."""
    known = {n: r["validation_ne"] for n, r in recipes.items() if r["validation_ne"] is not None}
    best = min(known, key=lambda name: known[name], default=None)
    closed = recipes[best]["closed"] if best else None
    cells = [line for line in lines if line["kind"] in (TRIAL, TEST)]
    missing = sum(found["cells"] - found["cells_done"] for found in recipes.values())
    seconds = sum(line["cell_seconds"] for line in cells)
    figures: dict[str, float | None] = {
        "recipes": float(len(recipes)),
        "cells_missing": float(missing),
        "hours": seconds / at_once / 3600 if not missing else None,
    }
    if config.source == "simulated":
        figures["closed_fraction_best"] = closed["value"] if closed else None
    for name, found in recipes.items():
        primary = found["actions"].get(config.primary, {})
        figures[f"ne_{name}"] = primary.get("ne") if found["state"] == COMPLETE else None
    return figures


def _goals(figures: Mapping[str, float | None]) -> list[dict[str, Any]]:
    goals = [("hours", "<=", GOAL_HOURS)]
    if "closed_fraction_best" in figures:
        goals.append(("closed_fraction_best", ">=", GOAL_CLOSED))
    found = []
    for figure, op, limit in goals:
        value = figures[figure]
        met = value is not None and (value <= limit if op == "<=" else value >= limit)
        found.append({"figure": figure, "op": op, "limit": limit, "met": met})
    return found


def failed_line(cell: Cell, error: str) -> Line:
    """Return the line of a cell that raised."""
    return {**cell.fields, "kind": FAILED, "failed_kind": cell.kind, "error": error}
