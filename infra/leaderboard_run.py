"""Fit what a leaderboard lacks, many cells on one Ray session, and write them down one by one."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ml
from infra.cluster import ClusterConfig
from infra.task_pool import TaskFailure, TaskPool
from ml.ranking.leaderboard.cells import Cell, Line
from ml.ranking.leaderboard.comparison import Evidence, new_lines
from ml.ranking.leaderboard.exam_folder import ExamFolder
from ml.ranking.leaderboard.fitting import run_cell
from ml.ranking.leaderboard.ledger import Ledger
from ml.ranking.leaderboard.modules import modules_hash
from ml.ranking.leaderboard.plan import BoardConfig, failed_cells, missing_cells
from ml.ranking.leaderboard.recipes import chosen_recipes
from ml.ranking.leaderboard.table import failed_line


@dataclass(frozen=True, kw_only=True, slots=True)
class RunLimits:
    """Bound one call.

    Attributes:
        budget_seconds: After this no new cell starts; None for no bound.
        retry: Whether cells that failed are fitted once more.
        cpus: Cells at a time, if Ray does not run already.
    """

    budget_seconds: float | None = None
    retry: bool = False
    cpus: int = 2


def recipe_states(names: tuple[str, ...]) -> dict[str, str]:
    """Return the named recipes, all without names, each with the state of its code.

    Raises:
        ValueError: If a name is unknown.
    """
    root = Path(next(iter(ml.__path__))).parent
    return {
        name: modules_hash(recipe.module, root=root, extra=recipe.description)
        for name, recipe in chosen_recipes(names).items()
    }


def fit_missing(
    config: BoardConfig,
    ledger: Ledger,
    folder: ExamFolder,
    *,
    limits: RunLimits,
    say: Callable[[str], None],
) -> int:
    """Fit cells until none is missing or the budget is spent; return how many were measured.

    Only this process writes the ledger, when a cell has ended: one that is killed loses the cells
    that run and nothing else. A cell that raises is a line; one whose process is lost stays missing
    and waits for the next call, for that is no fault of the recipe. Nothing starts if nothing is
    missing.

    Args:
        config: The leaderboard.
        ledger: Where lines are looked up and added.
        folder: The exam.
        limits: Time, and whether failed cells are tried again.
        say: Takes a line when a cell ends.
    """
    forgiven = failed_cells(config, ledger) if limits.retry else set()
    if not missing_cells(config, ledger, forgiven=forgiven):
        return 0
    began, measured = time.monotonic(), 0
    running: set[Cell] = set()
    lost: set[Cell] = set()
    with TaskPool(run_cell, config=ClusterConfig(cpus=limits.cpus)) as pool:
        while True:
            while pool.has_room and _has_time(limits, began):
                cells = missing_cells(config, ledger, forgiven=forgiven)
                cell = next((cell for cell in cells if cell not in running | lost), None)
                if cell is None:
                    break
                running.add(cell)
                pool.start(cell, str(folder.path), cell.fields)
            if pool.is_idle:
                return measured
            cell, outcome = pool.wait()
            running.remove(cell)
            if isinstance(outcome, TaskFailure):
                say(f"{cell.name} failed: {outcome.text}")
                if not outcome.raised:
                    lost.add(cell)
                    continue
                ledger.append(failed_line(cell, outcome.reason))
                forgiven.discard(cell)
                continue
            measured += 1
            say(f"{cell.name}: {_brief(ledger.append(outcome), primary=config.primary)}")


def compare(config: BoardConfig, ledger: Ledger, evidence: Evidence) -> None:
    """Add the summaries and comparisons that the kept predictions allow."""
    for line in new_lines(config, ledger, evidence):
        ledger.append(line)


def _has_time(limits: RunLimits, began: float) -> bool:
    budget = limits.budget_seconds
    return budget is None or time.monotonic() - began < budget


def _brief(line: Line, *, primary: str) -> str:
    entropy = line["validation"][primary]["ne"]
    return f"validation NE {entropy:.4f}, {line['cell_seconds']:.1f} s"
