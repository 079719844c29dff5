"""Measure what Replicate-and-Quantize does to a model on traffic it was not calibrated on."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from torch import nn

from ml.features import FloatArray, IntArray
from ml.inference.expert_plan import Plan
from ml.inference.expert_statistics import Batch, count_tokens
from ml.inference.load_imbalance import imbalance_report, load_imbalance
from ml.inference.replicate_quantize import expert_bytes
from ml.metrics import auc, normalized_entropy

# Shapes: L layers, M experts, N scored rows.


def compare_models(
    before: nn.Module, after: nn.Module, plan: Plan, traffic: Sequence[Batch]
) -> dict[str, Any]:
    """Return loads, imbalance and memory of a model before and after a plan.

    Both models route the traffic with their own routers; quantised experts of one layer may move
    a token in the next.

    Args:
        before: The original.
        after: The same with the plan applied.
        plan: One entry per sparse layer.
        traffic: Batches that were not calibrated on.
    """
    counts_before, counts_after = count_tokens(before, traffic), count_tokens(after, traffic)
    replicas = [layer.replicas for layer in plan.layers]
    layers = []
    for place, copies in enumerate(replicas):
        old = counts_before[:, place].sum(axis=0)
        new = counts_after[:, place].sum(axis=0)
        even = load_imbalance(new, replicas=copies)
        layers.append(
            {
                "loads_before": (old / old.sum()).tolist(),
                "loads_after": (new / np.asarray(copies) / new.sum()).tolist(),
                "replicas": list(copies),
                "quantised": list(plan.layers[place].quantised),
                "lis_before": load_imbalance(old).base,
                "lis_after": even.base,
                "lis_instances": even.instances,
            }
        )
    return {
        "layers": layers,
        "imbalance_before": asdict(imbalance_report(counts_before)),
        "imbalance_after": asdict(imbalance_report(counts_after, replicas_LM=replicas)),
        "bytes_before": expert_bytes(before),
        "bytes_after": expert_bytes(after),
    }


def optimisation_headline(
    comparison: dict[str, Any], labels: IntArray, before: FloatArray, after: FloatArray
) -> dict[str, Any]:
    """Return the headline figures of a comparison with the change of the metric.

    Args:
        comparison: From `compare_models`.
        labels: 1 where the answer is yes.
        before: The original's probabilities.
        after: The optimised model's.
    """
    ne_before, ne_after = normalized_entropy(labels, before), normalized_entropy(labels, after)
    return {
        "lis_before": comparison["imbalance_before"]["mean"],
        "lis_after": comparison["imbalance_after"]["mean"],
        "lis_per_batch_before": comparison["imbalance_before"]["per_batch_mean"],
        "lis_per_batch_after": comparison["imbalance_after"]["per_batch_mean"],
        "expert_bytes_before": comparison["bytes_before"],
        "expert_bytes_after": comparison["bytes_after"],
        "optimized_ne_change": ne_after - ne_before,
        "optimized_auc_change": auc(labels, after) - auc(labels, before),
    }
