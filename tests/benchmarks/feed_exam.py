"""The simulated feed as sequences, cut by days, without Spark or a lakehouse."""

from dataclasses import dataclass

import numpy as np

from ml.features import FeatureSpec, SequenceData
from ml.item_table import ItemTable
from pipelines.sources.simulation.block import BLOCK_USERS, simulate_block
from pipelines.sources.simulation.calendar import DAY_SECONDS
from pipelines.sources.simulation.catalogue import build_catalogue
from pipelines.sources.simulation.config import FeedConfig
from tests.benchmarks.exam_sequences import feature_spec, item_table, split_sequences


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FeedExam:
    """Hold a feed cut into train, validation and test days.

    Attributes:
        splits: Sequences of the three splits; each one's history is input.
        items: Facts of the items.
        spec: Vocabulary sizes; the click is the only action.
        config: The feed's knobs.
    """

    splits: dict[str, SequenceData]
    items: ItemTable
    spec: FeatureSpec
    config: FeedConfig


def feed_exam(config: FeedConfig, *, validation_day: int, test_day: int) -> FeedExam:
    """Simulate a feed and cut it.

    Args:
        config: The feed's knobs.
        validation_day: First day of validation, from 0.
        test_day: First day of test.

    Raises:
        ValueError: If one of the three splits would have no day.
    """
    if not 0 < validation_day < test_day < config.days:
        raise ValueError(
            f"days {validation_day} and {test_day} must cut {config.days} days into three parts"
        )
    blocks = [simulate_block(config, block) for block in range(-(-config.users // BLOCK_USERS))]
    columns = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    order = np.lexsort((columns["position"], columns["request"], columns["user"]))
    columns = {name: values[order] for name, values in columns.items()}
    starts = (float(validation_day * DAY_SECONDS), float(test_day * DAY_SECONDS))
    catalogue = build_catalogue(config)
    return FeedExam(
        splits=split_sequences(columns, config=config, starts=starts),
        items=item_table(catalogue),
        spec=feature_spec(catalogue),
        config=config,
    )
