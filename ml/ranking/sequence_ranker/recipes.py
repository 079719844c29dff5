"""Named, complete configurations of the sequence rankers."""

from dataclasses import dataclass, field, replace

from ml.batches import BatchConfig
from ml.ranking.sequence_ranker.config import SequenceRankerConfig
from ml.ranking.sequence_ranker.event_weights import EventWeightConfig
from ml.training.hdet_controller import HdetConfig
from ml.training.loop import TrainConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class RankerConfig:
    """Configure model, batches and training together.

    Attributes:
        model: Parts and sizes.
        batches: Batch size per replica, item dropout and order.
        training: Steps, learning rate and replicas.
        weights: How much each event's loss weighs.
    """

    model: SequenceRankerConfig
    batches: BatchConfig
    training: TrainConfig
    weights: EventWeightConfig = field(default_factory=EventWeightConfig)


def default() -> RankerConfig:
    """Return the configuration for some hundred thousand to some million events on a CPU."""
    return RankerConfig(
        model=SequenceRankerConfig(width=64, heads=2, layers=2, dropout_fraction=0.1),
        batches=BatchConfig(events=1024, item_dropout_fraction=0.1),
        training=TrainConfig(
            epochs=5,
            learning_rate=3e-3,
            weight_decay=0.02,
            patience=2,
            precision="float32",
            hdet=HdetConfig(sync_steps=50, auto_warmup_steps=100),
        ),
    )


def toy() -> RankerConfig:
    """Return a configuration that trains in seconds, for tests and small feeds."""
    recipe = default()
    return RankerConfig(
        model=replace(recipe.model, width=32, head_width=64),
        batches=replace(recipe.batches, events=2048),
        training=replace(
            recipe.training, epochs=3, hdet=HdetConfig(sync_steps=5, auto_warmup_steps=5)
        ),
    )


RECIPES = {"default": default, "toy": toy}


def recipe(name: str) -> RankerConfig:
    """Return a recipe by name.

    Raises:
        ValueError: If there is none of this name.
    """
    if name not in RECIPES:
        raise ValueError(f"no ranker recipe {name!r}; choose one of {sorted(RECIPES)}")
    return RECIPES[name]()
