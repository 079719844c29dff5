"""The training benchmark in its short form: small trainings of two processes, and no goal."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from infra.cluster import ClusterConfig, ray_instance, stop_ray
from tests.benchmarks.rankers_flops import Size, step_flops
from tests.benchmarks.train import GOALS, compared, limit_seconds, limits, possible
from tests.benchmarks.train_child import timing_file
from tests.benchmarks.train_processes import CpuWatch
from tests.benchmarks.train_runs import Load, Taken, prepare, taken, under_torchrun
from tests.benchmarks.train_turns import Turn, in_turns, overhead, step_seconds, take_turns

SMALL = Load(
    recipe="no_action", workers=2, cpus=2, steps=3, epochs=2, row_events=8, batch_events=32
)


def test_torchrun_trains_the_steps_and_tells_what_they_took(tmp_path: Path) -> None:
    prepared = prepare(SMALL, tmp_path / "prepared")
    before = sorted(path.name for path in prepared.iterdir())
    found = under_torchrun(SMALL, prepared, folder=tmp_path, name="bare")
    assert sorted(path.name for path in prepared.iterdir()) == before
    assert (tmp_path / "bare-data" / "checkpoints" / "step-000000006").is_dir()
    assert min(found.step_seconds, found.first_step_seconds) > 0
    assert 0 <= found.wait_share < 1
    assert min(found.before_function_seconds, found.to_first_step_seconds) > 0
    assert found.startup_cpu_seconds > 0.5  # both import torch
    assert found.step_cpu_seconds > 0


class _Ticks(CpuWatch):
    """Have used two CPU seconds in every second."""

    def between(self, first: float, last: float) -> float:
        return 2 * (last - first)


def test_the_first_epoch_and_the_first_step_count_apart() -> None:
    load = Load(recipe="toy", workers=2, cpus=2, steps=5, epochs=3)
    epochs = [(9.0, 8.0), (0.6, 0.03), (0.4, 0.02)]
    timing = {
        "started": 110.0,
        "losses": [115.0, 117.5],
        "ends": [125.0, 126.0, 126.5],
        "history": [{"train_seconds": s, "data_wait_seconds": w} for s, w in epochs],
    }
    found = taken(timing, load=load, started=100.0, watch=_Ticks())
    assert found.step_seconds == pytest.approx(0.1)
    assert found.step_cpu_seconds == pytest.approx(0.3)
    assert found.wait_share == pytest.approx(0.05)
    assert found.first_step_seconds == 2.5
    assert (found.before_function_seconds, found.to_first_step_seconds) == (10.0, 5.0)
    assert (found.startup_seconds, found.startup_cpu_seconds) == (15.0, 30.0)


def _taken(step_seconds: float, *, startup: float = 1.0) -> Taken:
    return Taken(
        step_seconds=step_seconds,
        step_cpu_seconds=step_seconds,
        wait_share=step_seconds / 10,
        first_step_seconds=1.0,
        before_function_seconds=startup,
        to_first_step_seconds=0.5,
        startup_cpu_seconds=2.0,
    )


def test_rounds_tell_the_median_of_their_ratios_and_the_start_ups() -> None:
    ray = [_taken(1.1, startup=9.0), _taken(4.0, startup=3.0), _taken(2.04, startup=4.0)]
    figures = compared(ray, [_taken(1.0), _taken(1.0), _taken(2.0)])
    assert figures["ray_step_ratio"] == pytest.approx(1.1)
    assert figures["data_wait_share"] == pytest.approx(0.204)
    assert figures["second_fit_startup_seconds"] == 3.5
    assert {goal.figure for goal in GOALS} <= {*figures, "ray_overhead"}


def test_an_overhead_that_cannot_be_is_not_measured() -> None:
    goal = next(goal for goal in GOALS if goal.figure == "ray_overhead")
    for seen, met in ((-0.3, False), (-0.02, True), (0.02, True), (0.04, False), (None, False)):
        assert goal.is_met({"ray_overhead": possible(seen)}) == met


def test_rays_overhead_is_the_mean_of_neighbouring_turns_ratios() -> None:
    figures = overhead([1.1, 2.2, None, 4.0, 9.0], [1.0, 2.0, 1.0, None])
    assert figures["ray_turns"] == 2
    assert figures["ray_turns_overhead"] == pytest.approx(0.1)
    assert figures["ray_turns_overhead_low"] == pytest.approx(0.1)
    wide = overhead([1.0, 1.2], [1.0, 1.0])
    assert wide["ray_turns_overhead"] == pytest.approx(1.2**0.5 - 1)
    # Student's 12.7062 with one degree of freedom, and a standard error of ln 1.2 / 2.
    high = 1.2**0.5 * 1.2 ** (12.7062 / 2) - 1
    assert wide["ray_turns_overhead_high"] == pytest.approx(high, rel=1e-4)
    assert overhead([1.0], [1.0])["ray_turns_overhead"] is None


def test_a_turns_step_lies_within_it_and_within_an_epoch() -> None:
    turns = [Turn(side="ray", began=began, ended=began + 4) for began in (0.0, 10.0, 20.0)]
    # The first turn: 1 to 2 and 2 to 3.5; the epoch that ends at 3.7 cuts the next.
    losses = [1.0, 2.0, 3.5, 3.9, 11.0, 11.5, 14.5, 19.0]
    assert step_seconds(turns, losses, breaks=[3.7]) == [1.25, 0.5, None]


def test_only_one_side_runs_at_a_time_and_all_run_in_the_end(tmp_path: Path) -> None:
    tick = (
        "import sys, time\n"
        "with open(sys.argv[1], 'a') as file:\n"
        "    while True:\n"
        "        print(time.time(), file=file, flush=True)\n"
        "        time.sleep(0.02)\n"
    )
    files = [tmp_path / name for name in "ab"]
    running = [subprocess.Popen([sys.executable, "-c", tick, str(file)]) for file in files]
    try:
        while not all(file.exists() and file.read_text() for file in files):
            time.sleep(0.05)
        first, second = (psutil.Process(process.pid) for process in running)
        rounds, waited = iter([True, True, True, True, False]), []

        def ready(side: str) -> bool:
            # "b" is late by one look; "a" is stopped until it is there.
            if side == "b":
                waited.append(first.status())
            return side == "a" or len(waited) > 2

        turns = take_turns(
            {"a": lambda: [first], "b": lambda: [second]},
            seconds=0.5,
            ready=ready,
            goes_on=lambda: next(rounds),
        )
        assert psutil.STATUS_STOPPED in waited
        assert [turn.side for turn in turns] == ["a", "b"] * 2
        assert {first.status(), second.status()}.isdisjoint({psutil.STATUS_STOPPED})
        for file, own in zip(files, "ab", strict=True):
            ticks = [float(line) for line in file.read_text().split()]
            for turn in turns:
                seen = sum(turn.began <= tick <= turn.ended for tick in ticks)
                assert seen > 3 if turn.side == own else seen == 0
    finally:
        for process in running:
            process.kill()
            process.wait()


def test_limits_by_hand() -> None:
    load = Load(recipe="default", workers=4, cpus=2, batch_events=1000, row_events=64)
    assert (load.step_events, load.threads) == (4 * 960, 1)
    flops = sum(
        step_flops("attn_mvp", Size(width=64, layers=2, heads=2, head_width=128), events=64)
    )
    assert load.event_flops == flops
    figures = limits([load], flops=1e9)
    # Four workers share two cores.
    assert figures["default_4_limit_step_seconds"] == pytest.approx(3840 * flops / 2e9)
    assert limit_seconds(load, flops=1e9) == figures["default_4_limit_step_seconds"]


def test_both_trainings_make_all_their_steps_in_turns(tmp_path: Path) -> None:
    load = replace(SMALL, steps=40, epochs=3)
    prepared = prepare(load, tmp_path / "prepared")
    ray_instance(ClusterConfig(cpus=load.cpus))
    try:
        figures = in_turns(load, prepared, folder=tmp_path, seconds=0.1)
    finally:
        stop_ray()
    for side in ("ray", "torchrun"):
        timing = json.loads((tmp_path / f"{side}-turns" / timing_file(0)).read_text())
        assert len(timing["losses"]) == load.steps * load.epochs
    assert figures["ray_turns"] is not None
    assert figures["ray_turns"] >= 2
    assert figures["ray_turns_overhead"] is not None


def test_cpu_seconds_of_processes_that_have_ended_still_count() -> None:
    busy = "import time\nwhile time.process_time() < 1.2: pass"
    with CpuWatch() as watch:
        started = time.time()
        subprocess.run([sys.executable, "-c", busy], check=True)
        ended = time.time()
    assert 0.7 < watch.between(started, ended) < 1.5
    assert watch.between(ended, time.time()) == pytest.approx(0.0, abs=0.01)


def test_a_watched_process_counts_without_its_neighbours() -> None:
    busy = "import time\nwhile time.process_time() < 1.0: pass"
    neighbour = subprocess.Popen([sys.executable, "-c", busy])
    idle = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1.5)"])
    with CpuWatch(idle.pid) as watch:
        started = time.time()
        idle.wait()
        neighbour.wait()
    assert watch.between(started, time.time()) < 0.5


def test_refuses_a_load_without_an_epoch_to_count() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        Load(recipe="toy", workers=1, cpus=1, epochs=1)
