"""Load imbalance of sparse experts (LIS), for a whole set and batch by batch.

Source: Replicate-and-Quantize; LIS of layer i is m * max_j n_ij / (n * k).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Shapes: B batches, L layers, M experts of a layer.


@dataclass(frozen=True, kw_only=True, slots=True)
class Imbalance:
    """Hold the imbalance of one layer; 1 is perfectly even.

    Attributes:
        base: m * max_j(n_j / r_j) / (n * k), comparable with the unreplicated score.
        instances: The same with the number of instances in place of m: evenness over instances.
    """

    base: float
    instances: float


def load_imbalance(
    counts_M: NDArray[np.int64] | Sequence[int],
    *,
    replicas: Sequence[int] | None = None,
) -> Imbalance:
    """Score how uneven the expert loads of one layer are.

    Args:
        counts_M: Tokens sent to each expert; they sum to tokens times top-k.
        replicas: Instances of each expert, 1 each if left out; tokens split evenly over them.

    Returns:
        Both scores; NaN for a layer that saw no token.

    Raises:
        ValueError: If there is no expert, a count is negative or an expert has no instance.
    """
    counts = np.asarray(counts_M, dtype=np.float64)
    copies = np.ones_like(counts) if replicas is None else np.asarray(replicas, dtype=np.float64)
    if counts.ndim != 1 or not len(counts) or counts.min() < 0:
        raise ValueError(f"expert counts must be a non-empty row of numbers >= 0, got {counts_M}")
    if copies.shape != counts.shape or copies.min() < 1:
        raise ValueError(f"each of {len(counts)} experts needs at least 1 instance, got {replicas}")
    total = counts.sum()
    if total == 0:
        return Imbalance(base=float("nan"), instances=float("nan"))
    heaviest = (counts / copies).max() / total
    return Imbalance(base=float(len(counts) * heaviest), instances=float(copies.sum() * heaviest))


@dataclass(frozen=True, kw_only=True, slots=True)
class ImbalanceReport:
    """Summarise the imbalance of all layers on one stream of batches.

    Attributes:
        per_layer: Whole-set score of each layer.
        mean: Mean of `per_layer`.
        per_batch_mean: Mean over batches and layers of the score of a single batch; what a
            straggler costs, which the whole-set score does not bound.
        per_batch_worst: Largest score of one batch in one layer.
        instances_mean: Mean over layers of the evenness over instances, whole set.
    """

    per_layer: tuple[float, ...]
    mean: float
    per_batch_mean: float
    per_batch_worst: float
    instances_mean: float


def imbalance_report(
    counts_BLM: NDArray[np.int64], *, replicas_LM: Sequence[Sequence[int]] | None = None
) -> ImbalanceReport:
    """Score a stream of batches, as a whole and one by one.

    Args:
        counts_BLM: Tokens that each expert of each layer got in each batch.
        replicas_LM: Instances of each expert, 1 each if left out.

    Raises:
        ValueError: If there is no batch or a shape is wrong.
    """
    if counts_BLM.ndim != 3 or not counts_BLM.size:
        raise ValueError(f"counts must be [batches, layers, experts], got {counts_BLM.shape}")
    num_layers = counts_BLM.shape[1]
    copies = replicas_LM if replicas_LM is not None else [None] * num_layers
    whole = [
        load_imbalance(counts_BLM[:, layer].sum(axis=0), replicas=copies[layer])
        for layer in range(num_layers)
    ]
    single = [
        load_imbalance(batch[layer], replicas=copies[layer]).base
        for batch in counts_BLM
        for layer in range(num_layers)
    ]
    return ImbalanceReport(
        per_layer=tuple(score.base for score in whole),
        mean=float(np.mean([score.base for score in whole])),
        per_batch_mean=float(np.nanmean(single)),
        per_batch_worst=float(np.nanmax(single)),
        instances_mean=float(np.mean([score.instances for score in whole])),
    )
