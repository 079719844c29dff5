"""Named, complete configurations of the prompt ranker."""

from dataclasses import dataclass, replace

from ml.generative.prompt_ranker.batches import RankingBatchConfig
from ml.generative.prompt_ranker.loss import AnswerLossConfig
from ml.generative.prompt_ranker.model import PromptRankerConfig
from ml.training.config import TrainConfig
from ml.training.engines import with_adascale, with_full_sharding, with_local_gradients
from ml.training.hdet.controller import HdetConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptRankerRecipe:
    """Configure vocabulary, model, batches, loss and training together.

    Attributes:
        model: Sizes, or the checkpoint to start from.
        vocabulary_size: Tokens of the vocabulary that is learned.
        tokenizer: Local folder or hub id of a tokenizer to use instead; a checkpoint needs its own.
        encoder: Text encoder that gives a small model its first token vectors; None for noise.
        max_member_tokens: Budget of the member's part.
        max_item_tokens: Budget of the item's part.
        batches: Prompts per batch.
        loss: Switches.
        training: Steps, learning rate and replicas.
    """

    model: PromptRankerConfig
    vocabulary_size: int = 3072
    tokenizer: str | None = None
    encoder: str | None = "wordllama"
    max_member_tokens: int = 96
    max_item_tokens: int = 32
    batches: RankingBatchConfig
    loss: AnswerLossConfig
    training: TrainConfig

    def __post_init__(self) -> None:
        """Check the invariants."""
        if self.model.checkpoint is not None and self.tokenizer is None:
            raise ValueError(f"checkpoint {self.model.checkpoint!r} needs its tokenizer; name it")
        longest = self.max_member_tokens + self.max_item_tokens + 2
        if self.model.max_tokens < longest:
            raise ValueError(f"max_tokens {self.model.max_tokens} is below the budgets' {longest}")


def default() -> PromptRankerRecipe:
    """Return the configuration for some ten thousand prompts on a CPU."""
    return PromptRankerRecipe(
        model=PromptRankerConfig(hidden_size=64, num_layers=2, expert_size=64, max_tokens=160),
        batches=RankingBatchConfig(prompts=64),
        loss=AnswerLossConfig(),
        training=TrainConfig(
            epochs=2,
            learning_rate=3e-3,
            patience=2,
            monitor="validation_ne",
            precision="float32",
            hdet=HdetConfig(sync_steps=25, auto_warmup_steps=50),
        ),
    )


def toy() -> PromptRankerRecipe:
    """Return a configuration that trains in seconds, for tests and small feeds."""
    recipe = default()
    return replace(
        recipe,
        model=replace(recipe.model, hidden_size=32, expert_size=32, num_experts=4),
        vocabulary_size=1024,
        batches=replace(recipe.batches, prompts=32),
        training=replace(
            recipe.training, max_steps=20, hdet=HdetConfig(sync_steps=5, auto_warmup_steps=5)
        ),
    )


def olmoe() -> PromptRankerRecipe:
    """Return the default with an OLMoE-style decoder: normalised queries and keys."""
    recipe = default()
    return replace(recipe, model=replace(recipe.model, architecture="olmoe"))


def adascale() -> PromptRankerRecipe:
    """Return the default trained by SGD with momentum, at the scale of all workers' batches."""
    recipe = default()
    return replace(recipe, training=with_adascale(recipe.training, learning_rate=0.3))


def fully_sharded() -> PromptRankerRecipe:
    """Return the default with weights, gradients and moments split over the workers."""
    recipe = default()
    return replace(recipe, training=with_full_sharding(recipe.training))


def local_gradients() -> PromptRankerRecipe:
    """Return the default whose replicas follow their own gradients between their meetings."""
    recipe = default()
    return replace(recipe, training=with_local_gradients(recipe.training))


RECIPES = {
    "default": default,
    "toy": toy,
    "olmoe": olmoe,
    "adascale": adascale,
    "fully_sharded": fully_sharded,
    "local_gradients": local_gradients,
}


def recipe(name: str) -> PromptRankerRecipe:
    """Return a recipe by name.

    Raises:
        ValueError: If there is none of this name.
    """
    if name not in RECIPES:
        raise ValueError(f"no prompt ranker recipe {name!r}; choose one of {sorted(RECIPES)}")
    return RECIPES[name]()
