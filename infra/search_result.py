"""What a search found: its trials, the best of them, and what it was a search of."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.json_lines import read_lines
from infra.search_kept import FAILURE_FILE, TRACEBACK_FILE
from infra.training_log import HISTORY_FILE

if TYPE_CHECKING:
    from ml.training.search_space import FieldRange

_NO_REASON = "it failed, and its reason could not be written down"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRecord:
    """Tell how a trial went.

    Attributes:
        number: From 0; the first trial is the recipe as it is.
        values: What it began with.
        history: A line for each epoch: score, metrics, values then in force, and `taken_from`, the
            trial whose checkpoint the epoch's stretch began from, or None for its own.
        failure: Why it failed, in a line, or None.
        traceback: File with the whole reason, or None.
        is_kept: Whether an earlier, interrupted search ran it.
    """

    number: int
    values: dict[str, float]
    history: list[dict[str, Any]]
    failure: str | None
    traceback: Path | None = None
    is_kept: bool = False

    @property
    def best(self) -> dict[str, Any] | None:
        """Return the line of the epoch with the lowest score, or None if none has a finite one."""
        lines = [line for line in self.history if math.isfinite(line["score"])]
        return min(lines, key=lambda line: line["score"], default=None)

    @property
    def score(self) -> float:
        """Return the lowest score, infinite if there is none."""
        return self.best["score"] if self.best else math.inf


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchResult:
    """Tell what a search found.

    Attributes:
        monitor: The validation metric that is the score; lower is better.
        trials: All trials, by number.
        space: Fields and ranges that were searched.
        notes: How the trials differ from the training that is to follow, a sentence each.
    """

    monitor: str
    trials: tuple[TrialRecord, ...]
    space: "tuple[FieldRange, ...]" = ()
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> TrialRecord:
        """Return the trial with the lowest score; one that failed only where no other has one."""
        return min(
            self.trials,
            key=lambda trial: (
                math.isinf(trial.score),
                trial.failure is not None,
                trial.score,
            ),
        )

    @property
    def best_values(self) -> dict[str, float]:
        """Return the values in force at the best epoch of the best trial."""
        line = self.best.best
        assert line is not None, "a search in which no trial has a score is an error"
        return dict(line["values"])


def course_notes(members: tuple[TrialRecord, ...]) -> tuple[str, ...]:
    """Say whether a population was none: fewer than two members came to a second epoch."""
    if sum(len(member.history) > 1 for member in members) > 1:
        return ()
    note = (
        "the population's members never met, for fewer than two came to a second epoch: this was "
        "a random search; raise max_steps, or mend what failed"
    )
    return (note,)


def read_trial(
    folder: Path, number: int, values: dict[str, float], *, lost: str | None, is_kept: bool
) -> TrialRecord:
    """Read what a trial wrote into its folder.

    Args:
        folder: The trial's.
        number: The trial's.
        values: What it began with.
        lost: Why its process was lost for good, or None.
        is_kept: Whether an earlier search ran it.
    """
    failure, traceback = folder / FAILURE_FILE, folder / TRACEBACK_FILE
    reason = failure.read_text(encoding="utf-8") or _NO_REASON if failure.exists() else None
    return TrialRecord(
        number=number,
        values=values,
        history=read_lines(folder / HISTORY_FILE),
        failure=reason or lost,
        traceback=traceback if (reason or lost) and traceback.exists() else None,
        is_kept=is_kept,
    )
