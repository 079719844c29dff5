"""What a ranker is trained on, whatever its family."""

from dataclasses import dataclass

from ml.features import FeatureSpec, SequenceData
from ml.item_table import ItemTable
from ml.ranking.contenders import Exam
from ml.ranking.expectation import Expectation, fit_expectation


@dataclass(frozen=True, kw_only=True, slots=True)
class RankerInputs:
    """Hold what a ranker is trained on.

    Attributes:
        train: Sequences of the train split.
        validation: Sequences of the validation split.
        items: Facts of the items.
        spec: Vocabulary sizes.
    """

    train: SequenceData
    validation: SequenceData
    items: ItemTable
    spec: FeatureSpec

    @classmethod
    def of(cls, exam: Exam) -> "RankerInputs":
        """Return the inputs that an exam holds."""
        return cls(
            train=exam.splits["train"],
            validation=exam.splits["validation"],
            items=exam.items,
            spec=exam.spec,
        )

    def expectation(self) -> Expectation:
        """Fit what the train split says of users on average."""
        return fit_expectation(self.train, items=self.items, spec=self.spec)
