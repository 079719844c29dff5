"""Holm's step-down correction: several claims of significance at one level together."""

from collections.abc import Mapping


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return adjusted p-values, at most 1 and never below a smaller one's.

    The i-th smallest of m, from 1, is multiplied by m - i + 1; a claim stands at level a if its
    adjusted value is at most a. No independence is needed.

    Args:
        p_values: Name of a claim to its p-value.

    Raises:
        ValueError: If a p-value is outside of [0, 1].

    Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    for name, p in p_values.items():
        if not 0 <= p <= 1:
            raise ValueError(f"the p-value of {name!r} is {p}: it must lie within 0 and 1")
    adjusted: dict[str, float] = {}
    largest = 0.0
    ordered = sorted(p_values.items(), key=lambda pair: pair[1])
    for place, (name, p) in enumerate(ordered):
        largest = max(largest, min(1.0, (len(ordered) - place) * p))
        adjusted[name] = largest
    return adjusted
