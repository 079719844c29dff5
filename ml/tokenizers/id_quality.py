"""How good semantic IDs are: uniqueness, topic lift and co-click lift."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Shapes: N items, L levels, C clicks.


@dataclass(frozen=True, kw_only=True, slots=True)
class Uniqueness:
    """Say how many distinct texts have an ID of their own.

    Attributes:
        share: Share of distinct texts whose full ID no other text has, before disambiguation.
        share_per_level: The same for the first 1, 2, ..., L codes.
        num_distinct_texts: Number of distinct texts.
        duplicates: Row numbers of the items of each text that occurs more than once.
    """

    share: float
    share_per_level: tuple[float, ...]
    num_distinct_texts: int
    duplicates: tuple[tuple[int, ...], ...]


def uniqueness(codes_NL: NDArray[np.int32], texts: Sequence[str]) -> Uniqueness:
    """Measure which share of the distinct texts has an ID of its own.

    Args:
        codes_NL: Codes of each item.
        texts: Text of each item; equal texts count once, since no encoder can part them.

    Raises:
        ValueError: If the lengths differ or there is no item.
    """
    if len(codes_NL) != len(texts) or not len(texts):
        raise ValueError(f"{len(codes_NL)} IDs for {len(texts)} texts; need the same, at least 1")
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, text in enumerate(texts):
        rows_of[text].append(row)
    first = codes_NL[[rows[0] for rows in rows_of.values()]]
    shares = []
    for level in range(1, codes_NL.shape[1] + 1):
        _, counts = np.unique(first[:, :level], axis=0, return_counts=True)
        shares.append(float((counts == 1).sum() / len(first)))
    return Uniqueness(
        share=shares[-1],
        share_per_level=tuple(shares),
        num_distinct_texts=len(first),
        duplicates=tuple(tuple(rows) for rows in rows_of.values() if len(rows) > 1),
    )


def topic_lift(
    first_codes_N: NDArray[np.int32], tags_N: Sequence[str] | NDArray[np.int64]
) -> float:
    """Return P(two items share a tag | they share the first code) over P(they share a tag).

    Returns NaN where no two items share a code, or none share a tag.
    """
    if len(first_codes_N) != len(tags_N):
        raise ValueError(f"{len(first_codes_N)} codes for {len(tags_N)} tags")
    _, tags = np.unique(np.asarray(tags_N), return_inverse=True)
    same_tag, all_pairs = _pairs(tags), len(tags) * (len(tags) - 1) / 2
    same_code = _pairs(first_codes_N)
    both = _pairs(np.stack([first_codes_N, tags.astype(first_codes_N.dtype)], axis=1))
    if same_code == 0 or same_tag == 0:
        return float("nan")
    return float((both / same_code) / (same_tag / all_pairs))


def co_click_lift(
    users_C: NDArray[np.int64],
    items_C: NDArray[np.int64],
    first_codes_C: NDArray[np.int32],
    *,
    num_shuffles: int = 5,
    seed: int = 0,
) -> float:
    """Return how much more often items clicked by one user share the first code than by chance.

    Chance is a shuffle of the clicks over the users: every item keeps its number of clicks and
    every user theirs. Pairs of the same item are left out on both sides.

    Args:
        users_C: User of each click.
        items_C: Item of each click.
        first_codes_C: First code of that item.
        num_shuffles: Shuffles to average over.
        seed: Seed of the shuffles.

    Returns:
        Ratio of the two shares, NaN where it cannot be computed.
    """
    generator = np.random.default_rng(seed)
    observed = _shared_code_share(users_C, items_C, first_codes_C)
    chance = []
    for _ in range(num_shuffles):
        order = generator.permutation(len(users_C))
        chance.append(_shared_code_share(users_C, items_C[order], first_codes_C[order]))
    expected = float(np.mean(chance)) if chance else float("nan")
    return float(observed / expected) if expected > 0 else float("nan")


def _pairs(groups: NDArray) -> float:
    _, counts = np.unique(groups, axis=0, return_counts=True)
    return float((counts * (counts - 1) / 2).sum())


def _shared_code_share(users: NDArray, items: NDArray, codes: NDArray) -> float:
    same_item = _pairs(np.stack([users, items], axis=1))
    same_code = _pairs(np.stack([users, codes.astype(users.dtype)], axis=1))
    all_pairs = _pairs(users) - same_item
    return (same_code - same_item) / all_pairs if all_pairs else float("nan")
