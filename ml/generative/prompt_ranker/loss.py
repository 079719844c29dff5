"""Cross-entropy of the answer token, plus an optional load-balancing term of the routers.

Source: 360Brew, section 8.4 of the stored notes; Switch Transformer (arXiv 2101.03961), equation
4, for the balancing term as transformers computes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from ml.generative.prompt_ranker.model import PromptRanker

# Shapes: B prompts.


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerLossConfig:
    """Switches of the loss.

    Attributes:
        router_balance: Weight of the load-balancing term; 0 leaves it out.
    """

    router_balance: float = 0.0

    def __post_init__(self) -> None:
        """Check the invariants."""
        if self.router_balance < 0:
            raise ValueError(f"router_balance must not be negative, got {self.router_balance}")


def answer_loss(logits_B2: Tensor, labels_B: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Return the mean cross-entropy of the answer among yes and no.

    Args:
        logits_B2: Logits, yes first.
        labels_B: 1 where the answer is yes.
        smoothing: Share of each label that is spread over both answers.
    """
    answers_B = 1 - labels_B.long()
    return torch.nn.functional.cross_entropy(logits_B2, answers_B, label_smoothing=smoothing)


def ranker_loss(
    model: PromptRanker, batch: Mapping[str, Tensor], *, config: AnswerLossConfig
) -> Tensor:
    """Run the model and return its training loss.

    Args:
        model: The model.
        batch: Its input, with `labels` [B].
        config: Switches.
    """
    smoothing = model.label_smoothing.value
    if not config.router_balance:
        return answer_loss(model(batch), batch["labels"], smoothing=smoothing)
    decoder = model.language_model.get_decoder()
    ids_BS = batch["input_ids"].long()
    output = decoder(input_ids=ids_BS, use_cache=False, output_router_logits=True)
    balance = load_balancing_loss_func(
        output.router_logits,
        model.config.num_experts,
        model.config.experts_per_token,
        batch["attention_mask"],
    )
    logits_B2 = model.answer(output.last_hidden_state, batch)
    answers = answer_loss(logits_B2, batch["labels"], smoothing=smoothing)
    return answers + config.router_balance * balance
