"""Leave-one-out: each user's last item is the test, the one before it validation.

The rest is for training. As published for sequence recommendation: when the test item is asked
for, the validation item is part of the history; the model is not trained again with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_ITEMS = 3

# Shapes: Q queries.


@dataclass(frozen=True, kw_only=True, slots=True)
class NextItems:
    """Hold histories and the item that came next.

    Attributes:
        histories: Item ids before it, oldest first.
        targets: The next item, int64.
    """

    histories: Sequence[NDArray[np.int64]]
    targets: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Check the invariants."""
        if len(self.histories) != len(self.targets):
            raise ValueError(f"{len(self.histories)} histories for {len(self.targets)} targets")


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaveOneOut:
    """Hold the three parts.

    Attributes:
        train: Each user's items but the last two.
        validation: Those, and the last but one as the target.
        test: All but the last, and the last as the target.
    """

    train: Sequence[NDArray[np.int64]]
    validation: NextItems
    test: NextItems


def leave_one_out(sequences: Sequence[NDArray[np.int64]]) -> LeaveOneOut:
    """Split each sequence.

    Args:
        sequences: Item ids of each user, oldest first.

    Raises:
        ValueError: If a sequence is too short to be split.
    """
    short = sum(len(sequence) < MIN_ITEMS for sequence in sequences)
    if short:
        raise ValueError(
            f"{short} of {len(sequences)} sequences have fewer than {MIN_ITEMS} items; "
            "leave them out before the split"
        )
    train = [sequence[:-2] for sequence in sequences]
    return LeaveOneOut(
        train=train,
        validation=NextItems(histories=train, targets=np.array([s[-2] for s in sequences])),
        test=NextItems(
            histories=[sequence[:-1] for sequence in sequences],
            targets=np.array([s[-1] for s in sequences]),
        ),
    )
