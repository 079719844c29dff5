"""Summarise semantic IDs for people: uniqueness, topic lift, co-click lift, duplicate texts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.features import SequenceData
from ml.tokenizers.id_quality import co_click_lift, topic_lift, uniqueness

_MAX_PAIRED_CLICKS = 200_000


def describe_ids(
    codes_NL: NDArray[np.int32],
    *,
    texts: Sequence[str],
    tags: Sequence[str],
    sequences: SequenceData,
    positive_mask: int,
) -> dict[str, Any]:
    """Return the figures of a set of IDs.

    Args:
        codes_NL: Codes of item 1, 2, ..., N.
        texts: Text of each item.
        tags: First tag of each item, empty for none.
        sequences: Sequences whose training rows hold the clicks.
        positive_mask: Action bits that count as a click.

    Returns:
        `headline` figures, `share_per_level` and `duplicate_items` (item indices by text).
    """
    unique = uniqueness(codes_NL, texts)
    tagged = np.array([bool(tag) for tag in tags])
    lift = topic_lift(codes_NL[tagged, 0], np.asarray(tags)[tagged]) if tagged.any() else np.nan
    train = sequences.in_split("train")
    clicked = (train.actions & positive_mask > 0) & (train.item > 0) & train.is_target
    users = train.user[train.event_row][clicked][:_MAX_PAIRED_CLICKS].astype(np.int64)
    items = train.item[clicked][:_MAX_PAIRED_CLICKS].astype(np.int64)
    co_click = co_click_lift(users, items, codes_NL[items - 1, 0])
    return {
        "headline": {
            "semantic_id_uniqueness": unique.share,
            "semantic_id_topic_lift": float(lift),
            "semantic_id_co_click_lift": float(co_click),
        },
        "share_per_level": list(unique.share_per_level),
        "num_distinct_texts": unique.num_distinct_texts,
        "num_items": len(texts),
        "duplicate_items": [[row + 1 for row in rows] for rows in unique.duplicates],
    }
