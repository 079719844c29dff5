"""Kill workers of a training at random; it ends with the bits of the run that nobody disturbed.

make drill NAME=crash-training [ARGS=<kills, 20 by default>]

Two Ray workers train the toy ranker with dropout and HDET, and write checkpoints within the
epochs. Each kill hits one of them, drawn at random, at a random moment; Ray starts both again, and
they go on from the newest checkpoint. Compared are weights, moments and the whole state of the
last checkpoint, and how often each row was trained on along the trajectory that was kept.
"""

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from infra.cluster import ClusterConfig, ray_instance
from infra.json_lines import read_lines
from infra.ray_training import FitPlan, FitResult, fit
from ml.training.checkpoint import load_state
from tests.benchmarks.crash_training_worker import EPOCHS, PIDS_FILE, prepare, train_and_note

KILLS = 20
_WORKERS = 2
_LONGEST_WAIT_SECONDS = 3.0
_STEP_SECONDS = 0.15
_FILES = ("model.safetensors", "optimizer.safetensors", "optimizer.json")


def drill(folder: Path, *, kills: int, seed: int = 0) -> dict[str, Any]:
    """Run the training undisturbed and killed; return the drill's figures.

    Args:
        folder: An empty folder.
        kills: How many workers to kill.
        seed: Of victims and moments.
    """
    num_rows = prepare(folder / "prepared")
    whole = _run(folder, "whole", step_seconds=0.0)
    killer = _Killer(folder / "killed" / PIDS_FILE, kills=kills, seed=seed)
    with killer:
        killed = _run(folder, "killed", step_seconds=_STEP_SECONDS)
    counts = _row_counts(folder / "killed-data")
    lost = sum(max(EPOCHS - counts[row], 0) for row in range(num_rows))
    doubled = sum(max(counts[row] - EPOCHS, 0) for row in range(num_rows))
    equal = _same(whole.checkpoint, killed.checkpoint)
    replayed = _replayed(folder / "killed-data")
    print(
        f"{killer.done} kills, {killed.starts} starts, {killed.seconds:.0f} s; "
        f"undisturbed {whole.seconds:.0f} s; last checkpoint equal: {equal}; "
        f"{num_rows} rows x {EPOCHS} epochs, lost {lost}, doubled {doubled}; "
        f"steps replayed {replayed}"
    )
    return {
        "drill": "crash-training",
        "faults": killer.done,
        "lost": lost,
        "doubled": doubled,
        "equal": equal and killer.done == kills and lost == doubled == 0 < replayed,
    }


def _run(folder: Path, name: str, *, step_seconds: float) -> FitResult:
    data = folder / f"{name}-data"
    shutil.copytree(folder / "prepared", data)
    plan = FitPlan(name=name, folder=folder, workers=_WORKERS, restarts=1000)
    return fit(train_and_note, {"data": str(data), "step_seconds": step_seconds}, plan)


class _Killer:
    """Kill one of the newest workers, again and again, until it was often enough."""

    def __init__(self, pids: Path, *, kills: int, seed: int) -> None:
        self.done = 0
        self._pids, self._kills = pids, kills
        self._draw = random.Random(seed)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        seen = 0
        while self.done < self._kills and not self._ended.is_set():
            started = read_lines(self._pids)
            if len(started) < seen + _WORKERS:
                time.sleep(0.05)
                continue
            seen = len(started)
            time.sleep(self._draw.uniform(0, _LONGEST_WAIT_SECONDS))
            victim = self._draw.choice(started[-_WORKERS:])
            with suppress(ProcessLookupError):
                os.kill(victim["pid"], signal.SIGKILL)
                self.done += 1
                print(f"kill {self.done:>3}: worker {victim['rank']}", flush=True)


def _kept_rows(data: Path) -> dict[tuple[int, int], list[int]]:
    """Return the rows of each (worker, step) as it was taken last: the trajectory kept."""
    return {
        (worker, line["step"]): line["rows"]
        for worker in range(_WORKERS)
        for line in read_lines(data / f"steps-{worker}.jsonl")
    }


def _row_counts(data: Path) -> Counter[int]:
    return Counter(row for rows in _kept_rows(data).values() for row in rows)


def _replayed(data: Path) -> int:
    taken = sum(len(read_lines(data / f"steps-{worker}.jsonl")) for worker in range(_WORKERS))
    return taken - len(_kept_rows(data))


def _same(one: Path | None, other: Path | None) -> bool:
    if one is None or other is None or one.name != other.name:
        return False
    files = all((one / name).read_bytes() == (other / name).read_bytes() for name in _FILES)
    return files and _timeless(one) == _timeless(other)


def _timeless(checkpoint: Path) -> dict[str, Any]:
    """Return the state of a checkpoint without the wall times."""
    state = load_state(checkpoint)
    for row in (*state["history"], state["progress"]):
        for name in [name for name in row if name.endswith("seconds")]:
            del row[name]
    return state


if __name__ == "__main__":
    ray_instance(ClusterConfig(cpus=2))
    number = int(sys.argv[1]) if len(sys.argv) > 1 else KILLS
    with tempfile.TemporaryDirectory() as temporary:
        figures = drill(Path(temporary), kills=number)
    print(json.dumps(figures))
    sys.exit(0 if figures["equal"] else 1)
