"""The rivals of shared-context scoring, and batches cut into contexts and candidates."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ml.batches import PAD_REQUEST, Batch
from ml.features import NO_TIME
from ml.ranking.sequence_ranker.model import SequenceRanker

_PADDING = {"request": PAD_REQUEST, "time": NO_TIME}


def steps_of(batch: Batch, steps: slice | list[int]) -> Batch:
    """Return some events of each sequence."""
    return replace(batch, **{name: getattr(batch, name)[:, steps] for name in _event_columns()})


def stacked(batches: list[Batch]) -> Batch:
    """Return the sequences of several batches as one, right-padded."""
    longest = max(batch.item.shape[1] for batch in batches)

    def joined(name: str) -> Tensor:
        parts = []
        for batch in batches:
            column = getattr(batch, name)
            ends = (0, 0) * (column.dim() - 2) + (0, longest - column.shape[1])
            parts.append(pad(column, ends, value=_PADDING.get(name, 0)))
        return torch.cat(parts)

    columns: dict[str, Any] = {name: joined(name) for name in _event_columns()}
    return Batch(**columns, row=torch.cat([batch.row for batch in batches]))


def recomputed(model: SequenceRanker, context: Batch, candidates: Batch) -> Tensor:
    """Return logits_BLA with the context computed again for every candidate."""
    with torch.inference_mode():
        return torch.cat(
            [
                model.score_candidates(one, model.context_cache(context))
                for one in _each(candidates)
            ],
            dim=1,
        )


def one_by_one(model: SequenceRanker, context: Batch, candidates: Batch) -> Tensor:
    """Return logits_BLA with one pass for each candidate over kept keys and values."""
    with torch.inference_mode():
        kept = model.context_cache(context)
        return torch.cat([model.score_candidates(one, kept) for one in _each(candidates)], dim=1)


def shared(model: SequenceRanker, context: Batch, candidates: Batch) -> Tensor:
    """Return logits_BLA with the context computed once and all candidates in one pass."""
    with torch.inference_mode():
        return model.score_candidates(candidates, model.context_cache(context))


@contextmanager
def counted_rows(model: SequenceRanker) -> Iterator[list[int]]:
    """Count the rows that enter each block: a list with one number per block."""
    rows = [0] * len(model.backbone.blocks)
    hooks = []
    for place, block in enumerate(model.backbone.blocks):

        def count(_: nn.Module, args: tuple[Tensor], __: Tensor, place: int = place) -> None:
            rows[place] += args[0].shape[0] * args[0].shape[1]

        hooks.append(block.get_submodule("norm").register_forward_hook(count))
    yield rows
    for hook in hooks:
        hook.remove()


def _each(candidates: Batch) -> Iterator[Batch]:
    for place in range(candidates.item.shape[1]):
        yield steps_of(candidates, slice(place, place + 1))


def _event_columns() -> list[str]:
    return [field.name for field in fields(Batch) if field.name != "row"]
