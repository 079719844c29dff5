"""What is fitted next: every recipe's trials in turn, the choice by validation, then the seeds."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ml.ranking.contenders import NUM_TRIALS
from ml.ranking.leaderboard.cells import FAILED, TEST, TRIAL, Cell, Line
from ml.ranking.leaderboard.ledger import Ledger
from ml.ranking.leaderboard.recipes import CLAIMS, Claim


@dataclass(frozen=True, kw_only=True, slots=True)
class BoardConfig:
    """Fix one leaderboard.

    Attributes:
        source: Name of the data source.
        data: Version of the data.
        primary: Action of the primary metric, its NE on validation.
        recipes: Name of each recipe to the state of its code.
        seeds: Seeds of the test cells; trials have the first.
        claims: What is claimed beside "beats the best classical baseline".
    """

    source: str
    data: str
    primary: str
    recipes: Mapping[str, str]
    seeds: tuple[int, ...] = (0, 1, 2)
    claims: tuple[Claim, ...] = CLAIMS

    def __post_init__(self) -> None:
        """Check that no result comes from few seeds.

        Raises:
            ValueError: If there are fewer than three seeds.
        """
        if len(set(self.seeds)) < 3:
            raise ValueError("a leaderboard needs at least 3 seeds")

    def cell(self, kind: str, recipe: str, *, seed: int, trial: int) -> Cell:
        """Return a cell of this leaderboard."""
        return Cell(
            kind=kind,
            recipe=recipe,
            source=self.source,
            seed=seed,
            trial=trial,
            data=self.data,
            modules=self.recipes[recipe],
        )

    def trials(self, recipe: str) -> list[Cell]:
        """Return the trial cells of a recipe."""
        seed = self.seeds[0]
        return [self.cell(TRIAL, recipe, seed=seed, trial=t) for t in range(NUM_TRIALS)]

    def holds(self, line: Line) -> bool:
        """Return whether a line is of this data and of the code of today."""
        is_ours = (line["source"], line["data"]) == (self.source, self.data)
        return is_ours and self.recipes.get(line["recipe"]) == line["modules"]


def missing_cells(
    config: BoardConfig, ledger: Ledger, *, forgiven: Collection[Cell] = ()
) -> list[Cell]:
    """Return the cells that can be fitted now, in a fair order.

    First trial 0 of every recipe, then trial 1 and so on; a recipe's test cells follow once all
    its trials have ended, seed by seed over the recipes.

    Args:
        config: The leaderboard.
        ledger: What is there already.
        forgiven: Cells that failed and are to be fitted once more, from `failed_cells`.
    """
    by_trial = zip(*(config.trials(recipe) for recipe in config.recipes), strict=True)
    cells = [cell for row in by_trial for cell in row]
    chosen = {
        recipe: chosen_trial(config, ledger, recipe, forgiven=forgiven) for recipe in config.recipes
    }
    cells += [
        config.cell(TEST, recipe, seed=seed, trial=trial)
        for seed in config.seeds
        for recipe, trial in chosen.items()
        if trial is not None
    ]
    return [cell for cell in cells if not _has_ended(ledger, cell, forgiven)]


def _has_ended(ledger: Ledger, cell: Cell, forgiven: Collection[Cell]) -> bool:
    return ledger.has(cell) or (ledger.has_failed(cell) and cell not in forgiven)


def chosen_trial(
    config: BoardConfig, ledger: Ledger, recipe: str, *, forgiven: Collection[Cell] = ()
) -> int | None:
    """Return the trial of the lowest primary NE on validation, the first of equals.

    A trial that failed was used up, and once the test split was opened the choice stands. None
    while trials are missing, or if all have failed.
    """
    for line in ledger.lines:
        if line["kind"] == TEST and line["recipe"] == recipe and config.holds(line):
            return line["trial"]
    if not all(_has_ended(ledger, cell, forgiven) for cell in config.trials(recipe)):
        return None
    found = validation_entropies(config, ledger, recipe)
    return min(found, key=lambda trial: (found[trial], trial), default=None)


def failed_cells(config: BoardConfig, ledger: Ledger) -> set[Cell]:
    """Return the cells that failed and may be fitted again.

    A trial may not once its recipe was scored on the test split: the choice stands.
    """
    failed = {
        Cell.of(line) for line in ledger.lines if line["kind"] == FAILED and config.holds(line)
    }
    opened = {
        line["recipe"] for line in ledger.lines if line["kind"] == TEST and config.holds(line)
    }
    return {
        cell
        for cell in failed
        if not ledger.has(cell) and (cell.kind == TEST or cell.recipe not in opened)
    }


def validation_entropies(config: BoardConfig, ledger: Ledger, recipe: str) -> dict[int, float]:
    """Return the primary NE on validation of each trial of a recipe that has one."""
    return {
        line["trial"]: line["validation"][config.primary]["ne"]
        for line in ledger.lines
        if line["kind"] == TRIAL
        and config.holds(line)
        and line["recipe"] == recipe
        and line["validation"][config.primary].get("ne") is not None
    }


def best_on_validation(
    config: BoardConfig, ledger: Ledger, candidates: tuple[str, ...]
) -> str | None:
    """Return the candidate whose chosen trial is best on validation, None before it is known.

    Named before the test split is opened, so that it is nobody's choice.
    """
    best = {}
    for recipe in candidates:
        if recipe in config.recipes:
            found = validation_entropies(config, ledger, recipe)
            if chosen_trial(config, ledger, recipe) is not None:
                best[recipe] = min(found.values())
    return min(best, key=lambda recipe: best[recipe], default=None)


def failures(config: BoardConfig, ledger: Ledger) -> dict[str, str]:
    """Return the newest error of each recipe that has a failed cell not measured later."""
    return {
        line["recipe"]: line["error"]
        for line in ledger.lines
        if line["kind"] == FAILED and config.holds(line) and not ledger.has(Cell.of(line))
    }
