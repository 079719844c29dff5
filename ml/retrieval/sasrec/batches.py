"""Sequences of item ids, cut into windows and packed into rows with next to no padding.

A row holds as many windows as fit, each with places from 0 and a segment number of its own, and
attention never leaves a segment: the states equal those of one window per row.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Shapes: W windows, B rows, L places of a row, N items of all windows.
Ids = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedRows:
    """Hold windows packed into rows.

    Attributes:
        items: [B, L] item ids, 0 where there is padding.
        places: [B, L] place of each item in its window, from 0.
        segments: [B, L] number of the window in its row from 1, 0 where there is padding; None if
            every row holds one window.
        index: [N] flat place of every window's items, window after window.
        last: [W] flat place of each window's last item.
        targets: [N] the item after each, for training; None for scoring.
    """

    items: Tensor
    places: Tensor
    segments: Tensor | None
    index: Tensor
    last: Tensor
    targets: Tensor | None = None

    def to(self, device: torch.device) -> "PackedRows":
        """Return the same on another device."""
        moved = {}
        for name in self.__slots__:
            value = getattr(self, name)
            moved[name] = value.to(device) if isinstance(value, Tensor) else value
        return PackedRows(**moved)


def training_windows(sequences: Sequence[Ids], *, length: int) -> list[Ids]:
    """Cut sequences into windows of at most length + 1 items, every item but the first a target.

    A window's inputs are all its items but the last, its targets all but the first; windows of a
    long sequence overlap by the one item that is a target before and an input after.
    Sequences of fewer than two items have nothing to predict and are left out.
    """
    return [
        sequence[max(end - length - 1, 0) : end]
        for sequence in sequences
        for end in range(len(sequence), 1, -length)
    ]


def training_rows(windows: Sequence[Ids], *, length: int) -> PackedRows:
    """Pack windows with the item after each place as its target."""
    packed = pack([window[:-1] for window in windows], length=length)
    return replace(packed, targets=torch.from_numpy(np.concatenate([w[1:] for w in windows])))


def pack(windows: Sequence[Ids], *, length: int) -> PackedRows:
    """Pack windows into rows of `length` places, the longest first, each where it fits best.

    Args:
        windows: Item ids of each, 1 to `length` of them.
        length: Places of a row, shortened to the fullest row's.

    Raises:
        ValueError: If there is no window, or one is empty or longer than a row.
    """
    lengths = np.array([len(window) for window in windows], dtype=np.int64)
    if not len(windows) or lengths.min() < 1 or lengths.max() > length:
        raise ValueError(f"windows must hold 1 to {length} items; cut or drop the others")
    row_W, start_W, segment_W = _best_fit(lengths, length=length)
    num_rows, width = int(row_W.max()) + 1, int((start_W + lengths).max())
    offsets = np.cumsum(lengths) - lengths
    place_N = np.arange(lengths.sum()) - np.repeat(offsets, lengths)
    first_W = row_W * width + start_W
    index_N = np.repeat(first_W, lengths) + place_N
    table = np.zeros((3, num_rows * width), dtype=np.int64)
    table[0, index_N] = np.concatenate(windows)
    table[1, index_N] = place_N
    table[2, index_N] = np.repeat(segment_W, lengths)
    items_BL, places_BL, segments_BL = torch.from_numpy(table).view(3, num_rows, width)
    return PackedRows(
        items=items_BL,
        places=places_BL,
        segments=segments_BL if num_rows < len(windows) else None,
        index=torch.from_numpy(index_N),
        last=torch.from_numpy(first_W + lengths - 1),
    )


def _best_fit(lengths: Ids, *, length: int) -> tuple[Ids, Ids, Ids]:
    """Return row, start and segment number of each window: best fit, longest first."""
    row, start, segment = (np.zeros(len(lengths), dtype=np.int64) for _ in range(3))
    open_rows: list[tuple[int, int, int]] = []  # free places, row, windows; by free places
    num_rows = 0
    for window in np.argsort(-lengths, kind="stable"):
        size = int(lengths[window])
        fit = bisect_left(open_rows, (size, -1, -1))
        if fit < len(open_rows):
            free, at, count = open_rows.pop(fit)
        else:
            free, at, count, num_rows = length, num_rows, 0, num_rows + 1
        row[window], start[window], segment[window] = at, length - free, count + 1
        if free > size:
            insort(open_rows, (free - size, at, count + 1))
    return row, start, segment


def shuffled_batches(
    windows: Sequence[Ids], *, size: int, length: int, seed: tuple[int, int]
) -> Iterator[PackedRows]:
    """Yield every window once, `size` at a time, in an order drawn from the seed."""
    order = np.random.default_rng(seed).permutation(len(windows))
    for start in range(0, len(windows), size):
        chosen = [windows[place] for place in order[start : start + size]]
        yield training_rows(chosen, length=length)
