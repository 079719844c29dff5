"""What takes part in the leaderboard: an exam is given, a contender fits, its scorer predicts.

Knows no contender; `ml.ranking.leaderboard.recipes` lists them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ml.features import FeatureSpec, FloatArray, SequenceData
from ml.item_table import ItemTable

# Shapes: T target events, A actions.


@dataclass(frozen=True, kw_only=True, slots=True)
class Exam:
    """Hold what a contender fits on.

    Attributes:
        splits: Sequences of train and validation; never of test.
        items: Facts of the items.
        spec: Vocabulary sizes and actions.
    """

    splits: Mapping[str, SequenceData]
    items: ItemTable
    spec: FeatureSpec

    def __post_init__(self) -> None:
        """Check that nobody can look at the answers.

        Raises:
            ValueError: If the splits are others than train and validation.
        """
        if set(self.splits) != {"train", "validation"}:
            raise ValueError(
                f"an exam holds train and validation, not {', '.join(sorted(self.splits))}: "
                "the test split is scored, never fitted on"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """Say which fit of a recipe is asked for.

    Attributes:
        seed: Seed of everything random.
        trial: Position in the recipe's search space; every recipe has `NUM_TRIALS` of them.
    """

    seed: int
    trial: int

    def __post_init__(self) -> None:
        """Check the range.

        Raises:
            ValueError: If there is no such trial or seed.
        """
        if not 0 <= self.trial < NUM_TRIALS or self.seed < 0:
            raise ValueError(f"no trial {self.trial} of {NUM_TRIALS} with seed {self.seed}")


class Scorer(Protocol):
    """Predict with a fitted contender."""

    @property
    def num_parameters(self) -> int:
        """Return how many numbers were fitted."""
        ...

    @property
    def train_seconds(self) -> float:
        """Return the wall time of the fit."""
        ...

    @property
    def epochs(self) -> float:
        """Return the passes over the train split that the chosen state has seen."""
        ...

    def probabilities(self, data: SequenceData) -> FloatArray:
        """Return the probability of each action for the target events in order, [T, A]."""
        ...


Contender = Callable[[Exam, Setting, Path], Scorer]
"""Fit on train, choose on validation; the folder is the fit's own and goes after it."""

NUM_TRIALS = 3
LEARNING_RATES = (1e-3, 3e-3, 6e-3)  # the search space of every recipe that torch trains
