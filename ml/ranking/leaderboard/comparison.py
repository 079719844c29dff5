"""Turn the predictions of all seeds into lines of the ledger: summaries, and paired differences."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ml.features import FeatureSpec, FloatArray, SequenceData
from ml.ranking.evaluation import TestRows
from ml.ranking.leaderboard.cells import COMPARISON, SUMMARY, TEST, Cell, Line, line_key
from ml.ranking.leaderboard.fitting import predictions_file
from ml.ranking.leaderboard.intervals import (
    Estimate,
    Judged,
    closed_fraction,
    entropy,
    entropy_difference,
)
from ml.ranking.leaderboard.ledger import Ledger
from ml.ranking.leaderboard.plan import BoardConfig, best_on_validation
from ml.ranking.leaderboard.recipes import CLASSICAL, Claim
from ml.ranking.leaderboard.scores import MIN_POSITIVES

# Shapes: T target events, A actions, S seeds.
# Rivals and references: nobody claims that they beat the best classical baseline.
_NOT_CLAIMED = ("popularity", *CLASSICAL)


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """Hold what intervals are made of.

    Attributes:
        test: Sequences of the test split.
        spec: Names of the actions.
        folder: Folder that holds the kept predictions.
    """

    test: SequenceData
    spec: FeatureSpec
    folder: Path

    def judged(self, bit: int) -> Judged:
        """Return the target events of an action."""
        target = self.test.is_target
        users = self.test.user[self.test.event_row][target]
        return Judged(users=users, labels=self.test.labels(bit)[target])

    def predictions(self, cells: list[Cell]) -> list[FloatArray] | None:
        """Return the predictions of a recipe's test cells, [T, A] each; None if one is gone."""
        found = []
        for cell in cells:
            path = predictions_file(self.folder, cell)
            if not path.exists():
                return None
            with np.load(path, allow_pickle=False) as arrays:
                found.append(arrays["predictions"])
        return found


def claims_of(config: BoardConfig, ledger: Ledger) -> list[Claim]:
    """Return the claims that this leaderboard puts to the test.

    Every recipe that is no baseline against the classical baseline that is best on validation,
    then the literal claims whose recipes take part.
    """
    rival = best_on_validation(config, ledger, CLASSICAL)
    general = [
        Claim(recipe=recipe, rival=rival)
        for recipe in config.recipes
        if rival is not None and recipe not in _NOT_CLAIMED
    ]
    known = [claim for claim in config.claims if {claim.recipe, claim.rival} <= set(config.recipes)]
    return general + known


def test_cells(config: BoardConfig, ledger: Ledger, recipe: str) -> list[Cell] | None:
    """Return the measured test cells of a recipe, one per seed; None while one is missing."""
    found = {
        line["seed"]: Cell.of(line)
        for line in ledger.lines
        if line["kind"] == TEST and line["recipe"] == recipe and config.holds(line)
    }
    if not set(config.seeds) <= set(found):
        return None
    return [found[seed] for seed in config.seeds]


def new_lines(config: BoardConfig, ledger: Ledger, evidence: Evidence) -> Iterator[Line]:
    """Yield the summaries and comparisons that can be made and are not in the ledger yet.

    What would need predictions that are no longer in the data home is left out.
    """
    there = {line_key(line) for line in ledger.lines}
    for recipe in config.recipes:
        line = _head(config, SUMMARY, recipe)
        cells = test_cells(config, ledger, recipe)
        if cells is None or line_key(line) in there:
            continue
        predictions = evidence.predictions(cells)
        if predictions is not None:
            yield line | _summary(evidence, predictions)
    for claim in claims_of(config, ledger):
        assert claim.rival is not None
        line = _head(config, COMPARISON, claim.recipe)
        line |= {"rival": claim.rival, "rival_modules": config.recipes[claim.rival]}
        sides = [test_cells(config, ledger, name) for name in (claim.recipe, claim.rival)]
        if line_key(line) in there or sides[0] is None or sides[1] is None:
            continue
        there.add(line_key(line))
        pair = [evidence.predictions(cells) for cells in sides if cells is not None]
        if pair[0] is not None and pair[1] is not None:
            yield line | asdict(_difference(evidence, pair[0], pair[1]))


def _head(config: BoardConfig, kind: str, recipe: str) -> Line:
    return {
        "kind": kind,
        "recipe": recipe,
        "source": config.source,
        "data": config.data,
        "modules": config.recipes[recipe],
        "seeds": list(config.seeds),
    }


def _summary(evidence: Evidence, predictions: list[FloatArray]) -> dict[str, Any]:
    """Return the NE of each judged action, and the closed fraction where it is known."""
    actions = {}
    for bit, name in enumerate(evidence.spec.actions):
        rows = evidence.judged(bit)
        if rows.labels.sum() >= MIN_POSITIVES:
            losses_TS = rows.losses([p[:, bit] for p in predictions])
            actions[name] = asdict(entropy(rows, losses_TS))
    closed = _closed(evidence, predictions)
    return {"ne": actions, "closed": None if closed is None else asdict(closed)}


def _closed(evidence: Evidence, predictions: list[FloatArray]) -> Estimate | None:
    bit = evidence.spec.primary_index
    reachable = TestRows.of(evidence.test, bit=bit).references.get("reachable")
    if reachable is None:
        return None
    rows = evidence.judged(bit)
    losses_TS = rows.losses([p[:, bit] for p in predictions])
    return closed_fraction(rows, losses_TS, rows.losses([reachable]))


def _difference(
    evidence: Evidence, predictions: list[FloatArray], others: list[FloatArray]
) -> Estimate:
    bit = evidence.spec.primary_index
    rows = evidence.judged(bit)
    losses_TS, others_TS = (
        rows.losses([p[:, bit] for p in side]) for side in (predictions, others)
    )
    return entropy_difference(rows, losses_TS, others_TS)
