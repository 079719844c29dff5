"""Named, complete configurations of the sequence rankers."""

from dataclasses import dataclass, field, replace

from ml.batches import BatchConfig
from ml.ranking.sequence_ranker.config import SequenceRankerConfig
from ml.ranking.sequence_ranker.event_weights import EventWeightConfig
from ml.row_chunks import StreamConfig
from ml.training.config import TrainConfig
from ml.training.engines import with_adascale, with_full_sharding, with_local_gradients
from ml.training.hdet.controller import HdetConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class RankerConfig:
    """Configure model, batches and training together.

    Attributes:
        model: Parts and sizes.
        batches: Batch size per replica, item dropout and order.
        training: Steps, learning rate and replicas.
        weights: How much each event's loss weighs.
        stream: How the rows of the train split are read while training; None to hold them all.
    """

    model: SequenceRankerConfig
    batches: BatchConfig
    training: TrainConfig
    weights: EventWeightConfig = field(default_factory=EventWeightConfig)
    stream: StreamConfig | None = None


def plain() -> RankerConfig:
    """Return what the schemes share where they are compared: ids, context, outcomes, one MLP."""
    return RankerConfig(
        model=SequenceRankerConfig(width=64, heads=2, layers=2, dropout_fraction=0.3),
        batches=BatchConfig(events=1024, item_dropout_fraction=0.1),
        training=TrainConfig(
            epochs=3,
            learning_rate=3e-3,
            weight_decay=0.1,
            patience=2,
            precision="float32",
            hdet=HdetConfig(sync_steps=50, auto_warmup_steps=100),
        ),
    )


def default() -> RankerConfig:
    """Return the configuration for some hundred thousand to some million events on a CPU.

    AttnMVP whose streams meet the numbers in crosses beside a network, and a wide part that
    remembers pairs.
    """
    recipe = plain()
    return replace(
        recipe,
        model=replace(
            recipe.model,
            head="parallel_dcn",
            late_numbers=True,
            wide_crosses=1 << 15,
            dropout_fraction=0.4,
        ),
        training=replace(recipe.training, weight_decay=0.2),
    )


def toy() -> RankerConfig:
    """Return a configuration that trains in seconds, for tests and small feeds."""
    recipe = default()
    return replace(
        recipe,
        model=replace(recipe.model, width=32, head_width=64, wide_crosses=1 << 10),
        batches=replace(recipe.batches, events=2048),
        training=replace(recipe.training, hdet=HdetConfig(sync_steps=5, auto_warmup_steps=5)),
    )


def streamed() -> RankerConfig:
    """Return the default configuration for a train split that no worker can hold."""
    return replace(default(), stream=StreamConfig())


def sparse_table() -> RankerConfig:
    """Return the default configuration for a catalogue of which a batch shows a small part.

    Item ids have a table of sparse gradients: a step costs what the batch shows, and HDET's
    replicas exchange what they changed.
    """
    recipe = default()
    return replace(
        recipe,
        model=replace(recipe.model, item_table="sparse"),
        training=replace(recipe.training, table_optimizer="rowwise_adagrad"),
    )


def sharded_table() -> RankerConfig:
    """Return the configuration for a catalogue that no worker can hold; without HDET."""
    recipe = sparse_table()
    return replace(
        recipe,
        model=replace(recipe.model, item_table="sharded"),
        training=replace(recipe.training, hdet=HdetConfig(spread_fraction=0.0, auto_lr=False)),
    )


def scheme(name: str) -> RankerConfig:
    """Return the plain recipe with another scheme: the paper's comparison, all else equal."""
    recipe = plain()
    return replace(recipe, model=replace(recipe.model, scheme=name))


def attn_mvp() -> RankerConfig:
    """AttnMVP: outcomes in the values of every layer and in a final pooling."""
    return scheme("attn_mvp")


def attn_mvp_without_lfa() -> RankerConfig:
    """AttnMVP without the final pooling."""
    return scheme("attn_mvp_without_lfa")


def attn_mvp_outcomes_alone() -> RankerConfig:
    """AttnMVP as published: what is added to the values knows the outcomes, not their item."""
    recipe = attn_mvp()
    return replace(recipe, model=replace(recipe.model, outcomes="alone"))


def attn_lfa() -> RankerConfig:
    """AttnLFA: a stack of items only, outcomes in a final pooling."""
    return scheme("attn_lfa")


def interleaved() -> RankerConfig:
    """The interleaved generative recommender: a row for each item and one for each outcome."""
    return scheme("interleaved")


def no_action() -> RankerConfig:
    """Only what was shown, never what came of it."""
    return scheme("no_action")


def attn_mvp_isotonic_layer() -> RankerConfig:
    """AttnMVP whose logits pass an isotonic layer that is trained with it (LiRank)."""
    recipe = attn_mvp()
    return replace(recipe, model=replace(recipe.model, calibration="isotonic_layer"))


def feed_sr() -> RankerConfig:
    """Feed-SR: interleaved, late numbers, two-gate mixture of DCNv2 experts, weighted losses.

    An event does not see its own session; the position is an offset of each logit.
    """
    recipe = scheme("interleaved")
    return replace(
        recipe,
        model=replace(
            recipe.model,
            head="mmoe_dcn",
            late_numbers=True,
            hides_session=True,
            position_offsets=True,
        ),
        weights=EventWeightConfig(
            halves_over_sequence=True, half_life_days=60.0, uses_propensity=True
        ),
    )


def with_rotation(recipe: RankerConfig, name: str) -> RankerConfig:
    """Return a recipe that turns queries and keys in another way."""
    return replace(recipe, model=replace(recipe.model, rotation=name))


def adascale() -> RankerConfig:
    """Return the default trained by SGD with momentum, at the scale of all workers' batches.

    Of the rates 0.3, 0.6, 1 and 2, one seed each on the simulated feed's validation split, 1 and 2
    ended lowest, and 2 began worse than the base rate.
    """
    recipe = default()
    return replace(recipe, training=with_adascale(recipe.training, learning_rate=1.0))


def fully_sharded() -> RankerConfig:
    """Return the default with weights, gradients and moments split over the workers."""
    recipe = default()
    return replace(recipe, training=with_full_sharding(recipe.training))


def local_gradients() -> RankerConfig:
    """Return the default whose replicas follow their own gradients between their meetings."""
    recipe = default()
    return replace(recipe, training=with_local_gradients(recipe.training))


RECIPES = {
    "default": default,
    "toy": toy,
    "streamed": streamed,
    "sparse_table": sparse_table,
    "sharded_table": sharded_table,
    "attn_mvp": attn_mvp,
    "attn_mvp_without_lfa": attn_mvp_without_lfa,
    "attn_mvp_outcomes_alone": attn_mvp_outcomes_alone,
    "attn_lfa": attn_lfa,
    "interleaved": interleaved,
    "no_action": no_action,
    "attn_mvp_isotonic_layer": attn_mvp_isotonic_layer,
    "feed_sr": feed_sr,
    "adascale": adascale,
    "fully_sharded": fully_sharded,
    "local_gradients": local_gradients,
}


def recipe(name: str) -> RankerConfig:
    """Return a recipe by name.

    Raises:
        ValueError: If there is none of this name.
    """
    if name not in RECIPES:
        raise ValueError(f"no ranker recipe {name!r}; choose one of {sorted(RECIPES)}")
    return RECIPES[name]()
