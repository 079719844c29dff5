"""Where a training stands: the reader's position, the epoch's sums and the random streams."""

import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ml.training.collectives import Collectives
from ml.training.seeds import seeded


@dataclass(kw_only=True, slots=True)
class Progress:
    """Hold what a checkpoint within an epoch needs beside weights, moments and schedule.

    Attributes:
        epoch: The epoch that is running, or that comes next.
        steps: Steps of it that are done; as many were read from its batches.
        loss: Summed loss of these steps.
        weight: The weight it is summed over.
        seconds: Wall time of these steps.
        waited_seconds: The part of it that was spent waiting for batches.
        first_sync: How many times the replicas had met before the epoch.
    """

    epoch: int = 0
    steps: int = 0
    loss: float = 0.0
    weight: float = 0.0
    seconds: float = 0.0
    waited_seconds: float = 0.0
    first_sync: int = 0

    def state_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        return asdict(self)

    def next_epoch(self, *, num_syncs: int) -> "Progress":
        """Return the start of the epoch that follows."""
        return Progress(epoch=self.epoch + 1, first_sync=num_syncs)


def check_steps(
    checkpoint: Path, *, saved: Mapping[str, int | None], now: Mapping[str, int | None]
) -> None:
    """Check that steps still are what a checkpoint's schedule and position count.

    Args:
        checkpoint: Its folder, to be named.
        saved: What decides about steps in the training that wrote it, by name.
        now: The same of the one that would go on.

    Raises:
        ValueError: If something differs.
    """
    for name, value in now.items():
        if saved[name] != value:
            raise ValueError(
                f"checkpoint {checkpoint} is of {saved[name]} {name}, and this training has "
                f"{value}: go on with the data, the batches and the number of workers that it "
                "began with, or begin anew in another folder"
            )


def random_states(collectives: Collectives, *, device: torch.device) -> list[str]:
    """Return the state of every replica's dropout stream, as texts by rank.

    Every replica must call it.
    """
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    gathered = collectives.gather(torch.cat(states).to(device)).cpu().numpy()
    return [base64.b64encode(row.tobytes()).decode() for row in gathered]


@contextmanager
def random_stream(
    progress: Progress, states: list[str] | None, *, seed: int, collectives: Collectives
) -> Iterator[None]:
    """Give dropout its stream: the saved one, or that of the epoch's place where it goes on.

    The saved one is used by as many replicas as saved it; other replicas begin streams of their
    own, which depend on seed, epoch, step and rank.

    Args:
        progress: Where the epoch goes on.
        states: What `random_states` returned, None at the start of an epoch.
        seed: Seed of the training.
        collectives: Gives this replica's number.
    """
    fits = states is not None and len(states) == collectives.size
    place = progress.epoch if fits else progress.epoch + (progress.steps << 20)
    with seeded(seed=seed, epoch=place, rank=collectives.rank):
        if states is not None and fits:
            _restore(base64.b64decode(states[collectives.rank]))
        yield


def _restore(state: bytes) -> None:
    """Set the streams of the processor and, if the state holds it, of the current GPU."""
    values = torch.from_numpy(np.frombuffer(state, np.uint8).copy())
    length = len(torch.get_rng_state())
    torch.set_rng_state(values[:length])
    if len(values) > length:
        torch.cuda.set_rng_state(values[length:])
