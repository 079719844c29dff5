"""Named, complete configurations of the dual encoder."""

from dataclasses import dataclass, replace

from ml.retrieval.dual_encoder.batches import RetrievalBatchConfig
from ml.retrieval.dual_encoder.loss import ContrastiveConfig
from ml.retrieval.dual_encoder.model import DualEncoderConfig
from ml.training.config import TrainConfig
from ml.training.engines import with_adascale, with_full_sharding, with_local_gradients
from ml.training.hdet.controller import HdetConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrieverConfig:
    """Configure vocabulary, model, batches, loss and training together.

    Attributes:
        model: Sizes, or the checkpoint to start from.
        vocabulary_size: Tokens of the vocabulary that is learned.
        tokenizer: Local folder or hub id of a tokenizer to use instead; a checkpoint needs its own.
        encoder: Text encoder that gives a small model its first token vectors; None for noise.
        batches: Members, hard negatives and history targets.
        loss: Temperature and switches.
        training: Steps, learning rate and replicas.
    """

    model: DualEncoderConfig
    vocabulary_size: int = 16_384
    tokenizer: str | None = None
    encoder: str | None = "wordllama"
    batches: RetrievalBatchConfig
    loss: ContrastiveConfig
    training: TrainConfig

    def __post_init__(self) -> None:
        """Check the invariants."""
        if self.model.checkpoint is not None and self.tokenizer is None:
            raise ValueError(f"checkpoint {self.model.checkpoint!r} needs its tokenizer; name it")
        hdet = self.training.hdet
        if self.loss.gather and (hdet.spread_fraction > 0 or hdet.noise_fraction > 0):
            raise ValueError(
                "loss.gather scores members against items that other replicas embedded: it needs "
                "equal replicas, so set hdet.spread_fraction and hdet.noise_fraction to 0, or "
                "batches.global_candidates instead of it"
            )
        if self.loss.gather and self.batches.global_candidates:
            raise ValueError("loss.gather and batches.global_candidates share the same candidates")


def default() -> RetrieverConfig:
    """Return the configuration for some ten thousand members on a CPU.

    Replicas explore learning rates, so each encodes all candidates of the global batch itself.
    """
    return RetrieverConfig(
        model=DualEncoderConfig(hidden_size=64, num_layers=1, intermediate_size=128),
        batches=RetrievalBatchConfig(
            members=64, hard_negatives=1, history_targets=8, global_candidates=True
        ),
        loss=ContrastiveConfig(temperature=0.05, use_log_q=True, gather=False),
        training=TrainConfig(
            epochs=2,
            learning_rate=5e-3,
            patience=3,
            monitor="validation_loss",
            precision="float32",
            hdet=HdetConfig(sync_steps=25, auto_warmup_steps=50),
        ),
    )


def global_batch() -> RetrieverConfig:
    """Return the default with equal replicas, which encode a share of the candidates each."""
    recipe = default()
    equal = replace(recipe.training.hdet, spread_fraction=0.0, auto_lr=False)
    return replace(
        recipe,
        batches=replace(recipe.batches, global_candidates=False),
        loss=replace(recipe.loss, gather=True),
        training=replace(recipe.training, hdet=equal),
    )


def toy() -> RetrieverConfig:
    """Return a configuration that trains in seconds, for tests and small feeds."""
    recipe = default()
    return replace(
        recipe,
        model=replace(recipe.model, hidden_size=32, intermediate_size=64),
        vocabulary_size=1024,
        batches=replace(recipe.batches, members=16),
        training=replace(
            recipe.training,
            epochs=1,
            max_steps=20,
            hdet=HdetConfig(sync_steps=5, auto_warmup_steps=5),
        ),
    )


def adascale() -> RetrieverConfig:
    """Return the default trained by SGD with momentum, at the scale of all workers' batches."""
    recipe = default()
    return replace(recipe, training=with_adascale(recipe.training, learning_rate=0.3))


def fully_sharded() -> RetrieverConfig:
    """Return the default with weights, gradients and moments split over the workers."""
    recipe = default()
    return replace(recipe, training=with_full_sharding(recipe.training))


def local_gradients() -> RetrieverConfig:
    """Return the default whose replicas follow their own gradients between their meetings."""
    recipe = default()
    return replace(recipe, training=with_local_gradients(recipe.training))


RECIPES = {
    "default": default,
    "global_batch": global_batch,
    "toy": toy,
    "adascale": adascale,
    "fully_sharded": fully_sharded,
    "local_gradients": local_gradients,
}


def recipe(name: str) -> RetrieverConfig:
    """Return a recipe by name.

    Raises:
        ValueError: If there is none of this name.
    """
    if name not in RECIPES:
        raise ValueError(f"no retriever recipe {name!r}; choose one of {sorted(RECIPES)}")
    return RECIPES[name]()
