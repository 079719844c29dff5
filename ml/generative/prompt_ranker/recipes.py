"""Named, complete configurations of the prompt ranker."""

from dataclasses import dataclass, replace

from ml.generative.prompt_ranker.examples import PromptBudget
from ml.generative.prompt_ranker.loss import AnswerLossConfig
from ml.training.hdet_controller import HdetConfig
from ml.training.loop import TrainConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderSizes:
    """Size the sparse decoder; the vocabulary comes with the tokenizer.

    Attributes:
        architecture: `mixtral` or `olmoe`.
        hidden_size: Width.
        num_layers: Layers.
        num_heads: Attention heads.
        num_experts: Routed experts per layer.
        experts_per_token: Experts that the router picks for a token.
        expert_size: Inner width of an expert.
    """

    architecture: str = "mixtral"
    hidden_size: int = 64
    num_layers: int = 2
    num_heads: int = 4
    num_experts: int = 8
    experts_per_token: int = 2
    expert_size: int = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptRankerRecipe:
    """Configure decoder, prompts, loss and training together.

    Attributes:
        decoder: Sizes.
        budget: Tokens of the two halves of a prompt.
        loss: Switches of the loss.
        training: Steps, learning rate and replicas.
        batch_size: Prompts per replica and step.
        vocabulary_size: Tokens that the tokenizer learns.
    """

    decoder: DecoderSizes
    budget: PromptBudget
    loss: AnswerLossConfig
    training: TrainConfig
    batch_size: int = 128
    vocabulary_size: int = 2048


def default() -> PromptRankerRecipe:
    """Return the configuration for some ten thousand prompts on a CPU."""
    return PromptRankerRecipe(
        decoder=DecoderSizes(),
        budget=PromptBudget(),
        loss=AnswerLossConfig(),
        training=TrainConfig(
            epochs=2,
            learning_rate=3e-3,
            weight_decay=0.02,
            patience=2,
            hdet=HdetConfig(sync_steps=20, auto_warmup_steps=40),
        ),
    )


def toy() -> PromptRankerRecipe:
    """Return a configuration that trains in seconds, for tests and small feeds."""
    recipe = default()
    return replace(
        recipe,
        decoder=replace(recipe.decoder, hidden_size=32, num_heads=2, expert_size=32),
        batch_size=32,
        vocabulary_size=1024,
        training=replace(
            recipe.training,
            epochs=1,
            max_steps=20,
            hdet=HdetConfig(sync_steps=5, auto_warmup_steps=5),
        ),
    )


RECIPES = {"default": default, "toy": toy}


def recipe(name: str) -> PromptRankerRecipe:
    """Return a recipe by name.

    Raises:
        ValueError: If there is none of this name.
    """
    if name not in RECIPES:
        raise ValueError(f"no prompt ranker recipe {name!r}; choose one of {sorted(RECIPES)}")
    return RECIPES[name]()
