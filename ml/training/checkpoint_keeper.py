"""Which checkpoints of a training stay on the disk, and what happens when it is full."""

import errno
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from ml.tensor_files import FULL_DISK
from ml.training.checkpoint import newest_checkpoint, recover, vanish
from ml.training.collectives import Collectives
from ml.training.config import CheckpointConfig

_log = logging.getLogger(__name__)


def checkpoint_step(folder: Path) -> int:
    """Return the step of a checkpoint's folder."""
    return int(folder.name.removeprefix("step-"))


def step_folder(folder: Path, step: int) -> Path:
    """Return where the checkpoint of a step lies."""
    return folder / f"step-{step:09d}"


def agreed_checkpoint(
    keeper: "CheckpointKeeper", replicas: Collectives, *, device: torch.device
) -> Path | None:
    """Return the newest checkpoint, on which all replicas agree; all of them must call it.

    Args:
        keeper: Knows the folder.
        replicas: How to reach the others.
        device: Where messages lie.

    Raises:
        ValueError: If they see different ones.
    """
    # An exchange first: what another replica was still writing is whole after it.
    replicas.gather(torch.zeros(1, device=device))
    newest = keeper.newest()
    own = -1 if newest is None else checkpoint_step(newest)
    steps = replicas.gather(torch.tensor([own], device=device)).flatten().tolist()
    if len(set(steps)) > 1:
        seen = ", ".join("none" if step < 0 else f"step {step}" for step in steps)
        raise ValueError(
            f"the replicas see different newest checkpoints in {keeper.folder}: {seen}; keep the "
            "folder on storage that all of them share"
        )
    return newest


class CheckpointKeeper:
    """Write checkpoints into one folder and remove those that are no longer wanted."""

    def __init__(self, folder: Path, *, config: CheckpointConfig) -> None:
        """Take the folder and tidy up what an interrupted save left in it."""
        self.folder, self._config = folder, config
        self.failures = 0
        recover(folder, names="step-*")

    def write(
        self, step: int, *, save: Callable[[Path], object], best_steps: Sequence[int]
    ) -> Path | None:
        """Save a step's checkpoint, then remove what is neither new nor among the best.

        A disk that is full costs this checkpoint and no other: nothing older is removed before
        the new one is whole, and the training goes on.

        Args:
            step: Optimiser steps so far.
            save: Writes the checkpoint into the folder that it is given.
            best_steps: Steps of the epochs' checkpoints, best first.

        Returns:
            The checkpoint's folder; None if there was no room for it.

        Raises:
            OSError: If it cannot be written for another reason than a full disk.
        """
        folder = self.attempt(step, save=save)
        if folder is not None:
            self._prune(best_steps)
        return folder

    def attempt(self, step: int, *, save: Callable[[Path], object]) -> Path | None:
        """Save a step's checkpoint, or a replica's part of it, and remove nothing; see `write`."""
        folder = step_folder(self.folder, step)
        try:
            save(folder)
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise
            self.failures += 1
            _log.warning(
                "no room for the checkpoint of step %d in %s; the training goes on from it only "
                "after the next one that fits: free some space there",
                step,
                self.folder,
            )
            return None
        return folder

    def newest(self) -> Path | None:
        """Return the checkpoint of the most steps, if there is one."""
        return newest_checkpoint(self.folder)

    def best(self, best_steps: Sequence[int]) -> Path:
        """Return the best epoch's checkpoint that is on the disk.

        Raises:
            OSError: If no epoch's is.
        """
        for step in best_steps:
            if (folder := step_folder(self.folder, step)).is_dir():
                return folder
        raise OSError(
            errno.ENOSPC,
            f"no epoch's checkpoint fitted on the disk of {self.folder}; free some space there "
            "and train again",
        )

    def _prune(self, best_steps: Sequence[int]) -> None:
        """Remove all but the newest and the best."""
        found = sorted(self.folder.glob("step-*"))
        kept = set(found[-self._config.keep_last :])
        held = [step_folder(self.folder, step) for step in best_steps]
        kept |= set([folder for folder in held if folder.is_dir()][: self._config.keep_best])
        for folder in found:
            if folder not in kept:
                vanish(folder)
