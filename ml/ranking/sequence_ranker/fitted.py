"""What is fitted on the whole train split once, before a ranker sees an event of it.

It lies in the weights' buffers later; on the way from who read the split to who trains on a part
of it at a time, it is a file.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ml.features import FeatureSpec, IntArray, SequenceData
from ml.item_table import ItemTable
from ml.layers.time_features import set_time_origin
from ml.ranking.crosses import cross_vocabulary
from ml.ranking.expectation import Expectation, fit_expectation, plain_expectation
from ml.ranking.sequence_ranker.config import SequenceRankerConfig
from ml.ranking.sequence_ranker.event_weights import TimeSpan, time_span
from ml.ranking.sequence_ranker.model import SequenceRanker


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Fitted:
    """Hold what a ranker and its batches must know of the whole train split.

    Attributes:
        expectation: What users on average do.
        cross_keys: Vocabulary of the wide part's crosses, None for no such part.
        span: Times of the oldest and the newest dated event, None if none is dated.
    """

    expectation: Expectation
    cross_keys: IntArray | None
    span: TimeSpan | None

    def save(self, path: Path) -> None:
        """Write an uncompressed .npz file."""
        optional = {
            "cross_keys": self.cross_keys,
            "span": None if self.span is None else np.array(self.span, np.int64),
        }
        known = {name: array for name, array in optional.items() if array is not None}
        np.savez(path, rates=self.expectation.rates, weights=self.expectation.weights, **known)

    @classmethod
    def load(cls, path: Path) -> "Fitted":
        """Read a file written by `save`."""
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
        first_and_last = found.get("span")
        return cls(
            expectation=Expectation(rates=found["rates"], weights=found["weights"]),
            cross_keys=found.get("cross_keys"),
            span=None if first_and_last is None else tuple(first_and_last.tolist()),
        )

    def keep_in(self, model: SequenceRanker) -> None:
        """Keep what the model must know with its weights, which start at the base rates."""
        model.start_from(self.expectation)
        if self.cross_keys is not None:
            model.set_cross_keys(self.cross_keys)
        if self.span is not None:
            set_time_origin(model, self.span[0])


def fit_train_split(
    train: SequenceData, *, items: ItemTable, spec: FeatureSpec, config: SequenceRankerConfig
) -> Fitted:
    """Fit what a model of this configuration must know.

    Args:
        train: The whole train split.
        items: Facts of the items.
        spec: Vocabulary sizes.
        config: Which parts the model has.

    Raises:
        ValueError: If there is no target event.
    """
    expectation = (
        fit_expectation(train, items=items, spec=spec)
        if config.late_numbers
        else plain_expectation(train, spec=spec)
    )
    keys = None
    if size := config.wide_crosses:
        keys = cross_vocabulary(train, items=items, spec=spec, size=size)
    return Fitted(expectation=expectation, cross_keys=keys, span=time_span(train.time))
