"""Sparse mixture-of-experts decoder that reads member, item and question, and answers yes or no.

The score is read off the prefill: the logits of yes and no at the answer slot, no token is
generated.

Source: 360Brew, sections 8.1 to 8.4 of the stored notes (one decoder, text only), at toy size.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    MixtralConfig,
    OlmoeConfig,
    PretrainedConfig,
    PreTrainedModel,
)

from ml.layers.scalars import LabelSmoothing
from ml.training.checkpoint import load_model, save_checkpoint

# Shapes: B prompts, S tokens, H width, V vocabulary.

CONFIG_FILE = "prompt_ranker.json"
ARCHITECTURES = ("mixtral", "olmoe")


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptRankerConfig:
    """Choose the decoder.

    Attributes:
        architecture: `mixtral` or `olmoe`, of the sizes below.
        hidden_size: Width.
        num_layers: Layers, each with experts.
        num_heads: Attention heads.
        num_experts: Routed experts per layer.
        experts_per_token: Experts that the router picks for a token.
        expert_size: Inner width of an expert.
        max_tokens: Tokens of the longest prompt.
        checkpoint: Local folder or hub id of a sparse decoder; None for one from scratch.
        allow_download: Whether a checkpoint that is not on this machine may be fetched.
    """

    architecture: str = "mixtral"
    hidden_size: int = 64
    num_layers: int = 2
    num_heads: int = 4
    num_experts: int = 8
    experts_per_token: int = 2
    expert_size: int = 64
    max_tokens: int = 160
    checkpoint: str | None = None
    allow_download: bool = False

    def __post_init__(self) -> None:
        """Check the invariants."""
        if self.architecture not in ARCHITECTURES:
            raise ValueError(
                f"architecture must be one of {ARCHITECTURES}, got {self.architecture!r}"
            )
        if self.hidden_size % (2 * self.num_heads):
            raise ValueError(
                f"hidden_size {self.hidden_size} must be a multiple of 2 x {self.num_heads} heads"
            )
        if not 1 <= self.experts_per_token <= self.num_experts:
            raise ValueError(
                f"experts_per_token must be 1..{self.num_experts}, got {self.experts_per_token}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Vocabulary:
    """What the model must know of its tokenizer.

    Attributes:
        size: Tokens.
        yes_id: Token of the answer yes.
        no_id: Token of the answer no.
    """

    size: int
    yes_id: int
    no_id: int

    def __post_init__(self) -> None:
        """Check the invariants."""
        if self.yes_id == self.no_id or max(self.yes_id, self.no_id) >= self.size:
            raise ValueError(f"yes and no must be two tokens of the vocabulary, got {self}")


class PromptRanker(nn.Module):
    """Score prompts that end in the answer slot."""

    def __init__(
        self,
        config: PromptRankerConfig,
        vocabulary: Vocabulary,
        language_model: PreTrainedModel,
    ) -> None:
        """Wrap a sparse decoder; use `build` or `load` to get one."""
        super().__init__()
        self.config = config
        self.vocabulary = vocabulary
        self.language_model = language_model
        self.label_smoothing = LabelSmoothing()

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return answer logits_B2, yes first.

        Args:
            batch: With `input_ids` [B, S], right-padded, and `attention_mask` [B, S], 1 at real
                tokens. The last real token is the answer slot.
        """
        return self.answer(self.states(batch), batch)

    def states(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the last layer's states_BSH; causal, so right padding changes no real token."""
        decoder = self.language_model.get_decoder()
        ids_BS = batch["input_ids"].long()
        return decoder(input_ids=ids_BS, use_cache=False).last_hidden_state

    def answer(self, states_BSH: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Read the yes and no logits_B2 off the answer slot."""
        last_B = batch["attention_mask"].long().sum(dim=1) - 1
        slot_BH = states_BSH[torch.arange(len(last_B), device=last_B.device), last_B]
        head = cast("nn.Linear", self.language_model.get_output_embeddings()).weight
        return slot_BH @ head[[self.vocabulary.yes_id, self.vocabulary.no_id]].T


def yes_probability(logits_B2: Tensor) -> Tensor:
    """Return the softmax over yes and no, at yes."""
    return torch.sigmoid(logits_B2[:, 0] - logits_B2[:, 1])


def build(
    config: PromptRankerConfig,
    *,
    vocabulary: Vocabulary,
    seed: int,
    token_vectors_VW: Tensor | None = None,
) -> PromptRanker:
    """Make a model: a small sparse decoder from scratch, or the weights of a checkpoint.

    Args:
        config: Which one.
        vocabulary: Of its tokenizer.
        seed: Seed of the first weights.
        token_vectors_VW: First token vectors of a model from scratch, of about unit mean square.

    Raises:
        FileNotFoundError: If the checkpoint is not on this machine and may not be fetched.
    """
    if config.checkpoint is not None:
        return PromptRanker(config, vocabulary, _from_checkpoint(config, vocabulary.size))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        language_model = AutoModelForCausalLM.from_config(_decoder(config, vocabulary.size))
    if token_vectors_VW is not None:
        table = language_model.get_input_embeddings().weight
        with torch.no_grad():
            table.copy_(token_vectors_VW * language_model.config.initializer_range)
    return PromptRanker(config, vocabulary, language_model)


def config_text(model: PromptRanker) -> str:
    """Return all that is needed to build the model again, as JSON."""
    inner = json.loads(model.language_model.config.to_json_string(use_diff=False))
    header = {
        "prompt_ranker": asdict(model.config),
        "vocabulary": asdict(model.vocabulary),
        "language_model": inner,
    }
    return json.dumps(header, indent=1, sort_keys=True)


def save(model: PromptRanker, folder: Path) -> None:
    """Write the weights as safetensors and the configuration as JSON."""
    save_checkpoint(folder, model, texts={CONFIG_FILE: config_text(model)})


def load(folder: Path) -> PromptRanker:
    """Read a model written by `save` or a checkpoint; no network is needed.

    Raises:
        RuntimeError: If a weight is missing or would go unused.
    """
    header = json.loads((folder / CONFIG_FILE).read_text())
    inner: PretrainedConfig = AutoConfig.for_model(**header["language_model"])
    config = PromptRankerConfig(**header["prompt_ranker"])
    vocabulary = Vocabulary(**header["vocabulary"])
    model = PromptRanker(config, vocabulary, AutoModelForCausalLM.from_config(inner))
    load_model(folder, model)
    return model.eval()


def _decoder(config: PromptRankerConfig, vocabulary_size: int) -> PretrainedConfig:
    sizes = {
        "vocab_size": vocabulary_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.expert_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_heads,
        "num_experts_per_tok": config.experts_per_token,
        "max_position_embeddings": config.max_tokens,
        "tie_word_embeddings": True,
    }
    if config.architecture == "olmoe":
        return OlmoeConfig(num_experts=config.num_experts, **sizes)
    return MixtralConfig(num_local_experts=config.num_experts, sliding_window=None, **sizes)


def _from_checkpoint(config: PromptRankerConfig, vocabulary_size: int) -> PreTrainedModel:
    assert config.checkpoint is not None
    try:
        model = AutoModelForCausalLM.from_pretrained(
            config.checkpoint,
            local_files_only=not config.allow_download,
            use_safetensors=True,
        )
    except OSError as error:
        raise FileNotFoundError(
            f"sparse decoder {config.checkpoint!r} could not be loaded ({error}); give a local "
            "folder, allow the download, or leave it out"
        ) from error
    if cast("nn.Embedding", model.get_input_embeddings()).weight.shape[0] < vocabulary_size:
        model.resize_token_embeddings(vocabulary_size)
    return model
