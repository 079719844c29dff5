"""What a sequence ranker wants of each event beside the sequences' own columns, in batches.

All of it is of the event's own row and of what was fitted beforehand: its user's past, its
place in the sequence, its item. So a part of the rows is prepared as well as all of them, up to
the last bits of the sums over a past, which are differences of running sums.
"""

from dataclasses import dataclass

from ml.batches import BatchConfig, EventExtras, SequenceBatches
from ml.features import FeatureSpec, FloatArray, IntArray, SequenceData
from ml.item_table import ItemTable
from ml.ranking.crosses import cross_keys, cross_numbers
from ml.ranking.expectation import Expectation
from ml.ranking.numeric_features import numeric_features
from ml.ranking.sequence_ranker.model import SequenceRanker


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EventFeatures:
    """Make batches as one model wants them; asks the model nothing later.

    Attributes:
        spec: Vocabulary sizes.
        items: Facts of the items.
        expectation: What users on average do; None if the model reads no numbers.
        cross_keys: Vocabulary of crosses; None if the model reads none.
    """

    spec: FeatureSpec
    items: ItemTable
    expectation: Expectation | None
    cross_keys: IntArray | None

    @classmethod
    def of(cls, model: SequenceRanker) -> "EventFeatures":
        """Return what a model wants, which knows what was fitted on the train split."""
        config = model.config
        return cls(
            spec=model.spec,
            items=model.item_table(),
            expectation=model.expectation if config.late_numbers else None,
            cross_keys=model.cross_keys.cpu().numpy() if config.wide_crosses else None,
        )

    def batches(
        self, data: SequenceData, *, config: BatchConfig, weights: FloatArray | None = None
    ) -> SequenceBatches:
        """Return the batches of rows of one split.

        Args:
            data: Sequences.
            config: Batch size.
            weights: Weight of each event's loss, [E]; all 1 by default.
        """
        numbers = pairs = None
        facts = {"items": self.items, "spec": self.spec}
        if self.expectation is not None:
            numbers = numeric_features(data, **facts, expectation=self.expectation)
        if self.cross_keys is not None:
            pairs = cross_numbers(cross_keys(data, **facts), self.cross_keys)
        extras = EventExtras(weights=weights, numbers=numbers, crosses=pairs)
        return SequenceBatches(data, spec=self.spec, config=config, extras=extras)
