"""Named, complete configurations of the dual-encoder retriever."""

from dataclasses import dataclass, replace

from ml.retrieval.dual_encoder.batches import RetrievalBatchConfig
from ml.retrieval.dual_encoder.loss import ContrastiveConfig
from ml.training.hdet_controller import HdetConfig
from ml.training.loop import TrainConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderSizes:
    """Size the language model; the vocabulary comes with the tokenizer.

    Attributes:
        hidden_size: Width.
        num_layers: Layers.
        num_heads: Attention heads.
        intermediate_size: Width of the feed-forward part.
        max_member_tokens: Budget of a member prompt.
        max_item_tokens: Budget of an item prompt.
        checkpoint: Local folder or hub id of a causal model; None for a small Llama from scratch.
    """

    hidden_size: int = 64
    num_layers: int = 1
    num_heads: int = 4
    intermediate_size: int = 128
    max_member_tokens: int = 96
    max_item_tokens: int = 28
    checkpoint: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrieverRecipe:
    """Configure model, batches, loss and training together.

    Attributes:
        model: Sizes.
        batches: How batches are drawn.
        loss: Switches of the loss.
        training: Steps, learning rate and replicas.
        vocabulary_size: Tokens that the tokenizer learns.
    """

    model: EncoderSizes
    batches: RetrievalBatchConfig
    loss: ContrastiveConfig
    training: TrainConfig
    vocabulary_size: int = 3072


def default() -> RetrieverRecipe:
    """Return the configuration for some ten thousand members on a CPU."""
    return RetrieverRecipe(
        model=EncoderSizes(),
        batches=RetrievalBatchConfig(members=64, hard_negatives=1),
        loss=ContrastiveConfig(),
        training=TrainConfig(
            epochs=2,
            learning_rate=5e-3,
            weight_decay=0.01,
            patience=2,
            monitor="validation_loss",
            hdet=HdetConfig(sync_steps=20, auto_warmup_steps=40),
        ),
    )


def toy() -> RetrieverRecipe:
    """Return a configuration that trains in seconds, for tests and small feeds."""
    recipe = default()
    return replace(
        recipe,
        model=replace(recipe.model, hidden_size=32, num_heads=2, intermediate_size=64),
        batches=replace(recipe.batches, members=16),
        vocabulary_size=1024,
        training=replace(
            recipe.training,
            epochs=1,
            max_steps=10,
            hdet=HdetConfig(sync_steps=5, auto_warmup_steps=5),
        ),
    )


RECIPES = {"default": default, "toy": toy}


def recipe(name: str) -> RetrieverRecipe:
    """Return a recipe by name.

    Raises:
        ValueError: If there is none of this name.
    """
    if name not in RECIPES:
        raise ValueError(f"no retriever recipe {name!r}; choose one of {sorted(RECIPES)}")
    return RECIPES[name]()
