"""Two trainings that take turns on the machine, so that a slow minute of it meets both.

While one runs, all processes of the other are stopped, those of its runtime too: what a runtime
does in the background is paid by its own training alone. On a machine whose steps take a fifth
longer in one minute than in another, two trainings one after the other cannot show a few per cent.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from scipy.stats import t as student

from tests.benchmarks.train_child import STEADY_FILE, timing_file
from tests.benchmarks.train_runs import Load, Taken, under_ray, under_torchrun

_LAUNCHER = "torch.distributed.run"
_POLL_SECONDS = 0.1
RAY, BARE = "ray", "torchrun"


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """Say who ran from when to when, in seconds since 1970."""

    side: str
    began: float
    ended: float


def take_turns(
    sides: Mapping[str, Callable[[], Sequence[psutil.Process]]],
    *,
    seconds: float,
    ready: Callable[[str], bool],
    goes_on: Callable[[], bool],
) -> list[Turn]:
    """Let one side's processes run at a time; all run in the end, whatever happens.

    Args:
        sides: Name to what finds a side's processes; asked anew before each turn.
        seconds: Length of a turn.
        ready: Whether a side may begin; one that may waits, stopped, until all may.
        goes_on: Whether there is to be another turn.
    """
    turns: list[Turn] = []
    try:
        while goes_on() and not all(map(ready, sides)):
            for side in filter(ready, sides):
                _each(sides[side](), psutil.Process.suspend)
            time.sleep(_POLL_SECONDS)
        while goes_on():
            for side in sides:
                for other in sides.keys() - {side}:
                    _each(sides[other](), psutil.Process.suspend)
                _each(sides[side](), psutil.Process.resume)
                began = time.time()
                time.sleep(seconds)
                turns.append(Turn(side=side, began=began, ended=time.time()))
    finally:
        for processes in sides.values():
            _each(processes(), psutil.Process.resume)
    return turns


def step_seconds(
    turns: Sequence[Turn], losses: Sequence[float], *, breaks: Sequence[float]
) -> list[float | None]:
    """Return a mean step of each turn: from one loss to the next, both within the turn.

    Args:
        turns: Turns of one side.
        losses: When each of its steps asked for its loss, ascending.
        breaks: When its epochs ended; a step that holds one is left out.

    Returns:
        For each turn its seconds, None if no step lies within it.
    """
    starts, ends = np.array(losses[:-1]), np.array(losses[1:])
    places = np.searchsorted(np.array(breaks), starts)
    is_whole = places == np.searchsorted(np.array(breaks), ends)
    found: list[float | None] = []
    for turn in turns:
        inside = is_whole & (starts >= turn.began) & (ends <= turn.ended)
        found.append(float((ends - starts)[inside].mean()) if inside.any() else None)
    return found


def overhead(ray: Sequence[float | None], bare: Sequence[float | None]) -> dict[str, float | None]:
    """Return by how much a step takes longer under Ray, the mean of neighbouring turns' ratios.

    Args:
        ray: Seconds of a step in each of Ray's turns.
        bare: The same of torchrun's turns, each after Ray's of the same place.

    Returns:
        The mean (of logarithms), its 95 % interval by Student, and the number of pairs; None where
        there are fewer than two.
    """
    both = zip(ray, bare, strict=False)
    ratios = np.log([one / other for one, other in both if one is not None and other is not None])
    figures: dict[str, float | None] = {"ray_turns": float(len(ratios))}
    names = ("ray_turns_overhead", "ray_turns_overhead_low", "ray_turns_overhead_high")
    if len(ratios) < 2:
        return figures | dict.fromkeys(names)
    error = ratios.std(ddof=1) / np.sqrt(len(ratios))
    half = float(student.ppf(0.975, len(ratios) - 1)) * error
    values = (ratios.mean(), ratios.mean() - half, ratios.mean() + half)
    return figures | {
        name: float(np.expm1(value)) for name, value in zip(names, values, strict=True)
    }


def in_turns(
    load: Load, prepared: Path, *, folder: Path, seconds: float
) -> dict[str, float | None]:
    """Train under Ray and under torchrun at once, in turns after the first epoch of both.

    Args:
        load: What `prepared` holds.
        prepared: A prepared folder; stays as it is.
        folder: Where the trainings' own folders go.
        seconds: Length of a turn.
    """
    names = {side: f"{side}-turns" for side in (RAY, BARE)}
    ended = threading.Event()

    def turns_of(bare: Future[Taken]) -> list[Turn]:
        return take_turns(
            {RAY: _others, BARE: _launched},
            seconds=seconds,
            ready=lambda side: (folder / names[side] / STEADY_FILE).exists(),
            goes_on=lambda: not (ended.is_set() or bare.done()),
        )

    with ThreadPoolExecutor(2) as pool:
        bare = pool.submit(under_torchrun, load, prepared, folder=folder, name=names[BARE])
        taking = pool.submit(turns_of, bare)
        try:
            under_ray(load, prepared, folder=folder, name=names[RAY])
        finally:
            ended.set()
        bare.result()
        turns = taking.result()
    steps = {}
    for side, name in names.items():
        timing = json.loads((folder / name / timing_file(0)).read_text())
        own = [turn for turn in turns if turn.side == side]
        steps[side] = step_seconds(own, timing["losses"], breaks=timing["ends"])
    return overhead(steps[RAY], steps[BARE])


def _launched() -> list[psutil.Process]:
    """Return the processes of torchrun below this one."""
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if _LAUNCHER in child.cmdline():
                return [child, *child.children(recursive=True)]
    return []


def _others() -> list[psutil.Process]:
    """Return all other processes below this one: Ray's."""
    launched = set(_launched())
    return [p for p in psutil.Process().children(recursive=True) if p not in launched]


def _each(processes: Sequence[psutil.Process], do: Callable[[psutil.Process], None]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            do(process)
