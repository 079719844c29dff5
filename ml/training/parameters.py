"""Parameter groups: embeddings, other matrices, and what is never decayed."""

from collections.abc import Sequence
from typing import Any

from torch import nn


def parameter_groups(
    model: nn.Module, *, weight_decay: float, without: Sequence[nn.Parameter] = ()
) -> list[dict[str, Any]]:
    """Return AdamW groups named embedding, dense and no_decay, empty ones left out.

    Matrices of embedding layers form the first group; biases, norms and other vectors the last.

    Args:
        model: The model; frozen parameters are left out.
        weight_decay: Decay of the first two groups.
        without: Parameters that another optimiser steps.
    """
    embedding_names = {
        f"{name}.weight" if name else "weight"
        for name, module in model.named_modules()
        if "Embedding" in type(module).__name__
    }
    others = {id(parameter) for parameter in without}
    groups: dict[str, list[nn.Parameter]] = {"embedding": [], "dense": [], "no_decay": []}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad or id(parameter) in others:
            continue
        kind = "embedding" if name in embedding_names else "dense"
        groups["no_decay" if parameter.ndim < 2 else kind].append(parameter)
    decays = {"embedding": weight_decay, "dense": weight_decay, "no_decay": 0.0}
    return [
        {"name": name, "params": parameters, "weight_decay": decays[name]}
        for name, parameters in groups.items()
        if parameters
    ]
