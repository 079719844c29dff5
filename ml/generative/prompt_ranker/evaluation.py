"""Judge a prompt ranker on sampled impressions of the test period, beside popularity."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from ml.bootstrap import auc_interval
from ml.features import FloatArray, IntArray
from ml.metrics import normalized_entropy


def evaluate_prompt_ranker(
    labels: IntArray, users: IntArray, probabilities: FloatArray, *, popularity: FloatArray
) -> dict[str, Any]:
    """Return NE and AUC with intervals, headline figures, and the verdict.

    Args:
        labels: 1 where the answer is yes.
        users: User of each row.
        probabilities: P(yes).
        popularity: Popularity of each row's item on its day, the rival's score.
    """
    models = {
        "prompt_ranker": {
            "ne": normalized_entropy(labels, probabilities),
            "auc": asdict(auc_interval(users, labels, probabilities)),
        },
        "popularity": {"ne": None, "auc": asdict(auc_interval(users, labels, popularity))},
    }
    own, rival = models["prompt_ranker"], models["popularity"]
    headline = {
        "prompt_ranker_ne": own["ne"],
        "prompt_ranker_auc": own["auc"]["estimate"],
        "prompt_ranker_auc_low": own["auc"]["low"],
        "popularity_auc": rival["auc"]["estimate"],
    }
    faults = _faults(headline)
    return {
        "rows": len(labels),
        "users": len(np.unique(users)),
        "models": models,
        "headline": headline,
        "verdict": {
            "passed": not faults,
            "figures": headline,
            "reason": "; ".join(faults) or "NE below 1, AUC above one half and above popularity",
        },
    }


def _faults(figures: Mapping[str, float]) -> list[str]:
    faults = []
    if not figures["prompt_ranker_ne"] < 1:
        faults.append("NE is not below 1")
    if not figures["prompt_ranker_auc_low"] > 0.5:
        faults.append("the AUC's interval reaches one half")
    if not figures["prompt_ranker_auc"] > figures["popularity_auc"]:
        faults.append("the AUC is not above popularity's")
    return faults
