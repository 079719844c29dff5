"""One causal language model that embeds members and items: masked mean of the last states.

Pooling averages all tokens of the last layer (last-token pooling is the common default and is
worse here), then scales to unit norm.

Source: LLM dual encoder for feed retrieval (LinkedIn), sections 5.2 to 5.4 of the stored notes.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
)

from ml.training.checkpoint import load_model, save_checkpoint

# Shapes: B prompts, Q queries, C candidate items, S tokens, H hidden width, D embedding width.

CONFIG_FILE = "dual_encoder.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class DualEncoderConfig:
    """Choose the language model.

    Attributes:
        hidden_size: Width of the default model.
        num_layers: Layers of the default model.
        num_heads: Attention heads of the default model.
        intermediate_size: Width of its feed-forward part.
        max_member_tokens: Budget of a member prompt.
        max_item_tokens: Budget of an item prompt.
        checkpoint: Local folder or hub id of a causal model; None for a small Llama from scratch.
        allow_download: Whether a checkpoint that is not on this machine may be fetched.
    """

    hidden_size: int = 96
    num_layers: int = 2
    num_heads: int = 4
    intermediate_size: int = 192
    max_member_tokens: int = 96
    max_item_tokens: int = 32
    checkpoint: str | None = None
    allow_download: bool = False

    def __post_init__(self) -> None:
        """Check the invariants."""
        if self.hidden_size % (2 * self.num_heads):
            raise ValueError(
                f"hidden_size {self.hidden_size} must be a multiple of 2 x {self.num_heads} heads"
            )
        if min(self.num_layers, self.max_member_tokens, self.max_item_tokens) < 1:
            raise ValueError("layers and token budgets must be at least 1")


class DualEncoder(nn.Module):
    """Embed member and item prompts with shared weights."""

    def __init__(self, config: DualEncoderConfig, language_model: PreTrainedModel) -> None:
        """Wrap a causal language model without its head; use `build` or `load` to get one."""
        super().__init__()
        self.config = config
        self.language_model = language_model

    def embed(self, ids_BS: Tensor, lengths_B: Tensor) -> Tensor:
        """Embed right-padded prompts.

        Args:
            ids_BS: Token ids.
            lengths_B: Real tokens of each row, at least 1.

        Returns:
            embeddings_BD, unit norm.
        """
        rows_B = torch.arange(len(ids_BS), device=ids_BS.device)
        return self.embed_prefixes(ids_BS, rows_B, lengths_B)

    def embed_prefixes(self, ids_BS: Tensor, rows_Q: Tensor, ends_Q: Tensor) -> Tensor:
        """Embed the first tokens of prompts, several prefixes of one prompt in one pass.

        The model is causal, so a prefix's states are those it would have alone, and padding,
        which stands right of every real token, is never seen.

        Args:
            ids_BS: Token ids.
            rows_Q: Prompt of each prefix.
            ends_Q: Tokens of each prefix, at least 1.

        Returns:
            embeddings_QD: Mean over the prefix's last-layer states, unit norm.
        """
        states_BSH = self.language_model(input_ids=ids_BS.long(), use_cache=False).last_hidden_state
        ends_Q = ends_Q.long()
        summed_QH = states_BSH.float().cumsum(dim=1)[rows_Q, ends_Q - 1]
        return nn.functional.normalize(summed_QH / ends_Q[:, None], dim=-1)

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Embed a batch's queries and candidate items.

        Args:
            batch: With `member_ids` [B, S], `query_rows` [Q], `query_ends` [Q], `item_ids`
                [C, S'] and `item_lengths` [C].

        Returns:
            queries_QD and items_CD.
        """
        queries_QD = self.embed_prefixes(
            batch["member_ids"], batch["query_rows"], batch["query_ends"]
        )
        return queries_QD, self.embed(batch["item_ids"], batch["item_lengths"])


def build(
    config: DualEncoderConfig,
    *,
    vocabulary_size: int,
    seed: int,
    token_vectors_VW: Tensor | None = None,
) -> DualEncoder:
    """Make a model: a small Llama from scratch, or the weights of a checkpoint.

    Args:
        config: Which one.
        vocabulary_size: Tokens of the tokenizer.
        seed: Seed of the first weights.
        token_vectors_VW: First token vectors of a model from scratch, of about unit mean square.

    Raises:
        FileNotFoundError: If the checkpoint is not on this machine and may not be fetched.
    """
    if config.checkpoint is not None:
        return DualEncoder(config, _from_checkpoint(config, vocabulary_size))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        language_model = AutoModel.from_config(_llama(config, vocabulary_size))
    if token_vectors_VW is not None:
        table = language_model.get_input_embeddings().weight
        with torch.no_grad():
            table.copy_(token_vectors_VW * language_model.config.initializer_range)
    return DualEncoder(config, language_model)


def config_text(model: DualEncoder) -> str:
    """Return all that is needed to build the model again, as JSON."""
    inner = json.loads(model.language_model.config.to_json_string(use_diff=False))
    header = {"dual_encoder": asdict(model.config), "language_model": inner}
    return json.dumps(header, indent=1, sort_keys=True)


def save(model: DualEncoder, folder: Path) -> None:
    """Write the weights as safetensors and the configuration as JSON."""
    save_checkpoint(folder, model, texts={CONFIG_FILE: config_text(model)})


def load(folder: Path) -> DualEncoder:
    """Read a model written by `save` or a checkpoint; no network is needed.

    Raises:
        RuntimeError: If a weight is missing or would go unused.
    """
    header = json.loads((folder / CONFIG_FILE).read_text())
    inner: PretrainedConfig = AutoConfig.for_model(**header["language_model"])
    config = DualEncoderConfig(**header["dual_encoder"])
    model = DualEncoder(config, AutoModel.from_config(inner))
    load_model(folder, model)
    return model.eval()


def _llama(config: DualEncoderConfig, vocabulary_size: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocabulary_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_heads,
        max_position_embeddings=max(config.max_member_tokens, config.max_item_tokens),
    )


def _from_checkpoint(config: DualEncoderConfig, vocabulary_size: int) -> PreTrainedModel:
    assert config.checkpoint is not None
    try:
        model = AutoModel.from_pretrained(
            config.checkpoint,
            local_files_only=not config.allow_download,
            use_safetensors=True,
        )
    except OSError as error:
        raise FileNotFoundError(
            f"language model {config.checkpoint!r} could not be loaded ({error}); give a local "
            "folder, allow the download, or leave it out"
        ) from error
    if model.get_input_embeddings().weight.shape[0] < vocabulary_size:
        model.resize_token_embeddings(vocabulary_size)
    return model
