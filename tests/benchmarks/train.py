"""How fast a ranker trains on this machine, what Ray costs, and what a training's start costs.

make bench BENCH=train [ARGS="--rounds 3 --steps 40 --epochs 4 --recipe default --cheapest toy
                              --turn-seconds 2 --turn-steps 300"]

First come the limits: the operations that a step cannot do without over what a core does of them
in a large float32 product, with as many cores as there are workers or processors. Then

throughput   events per second of the recipe on 1, 2 and 4 Ray workers of a fraction of a processor
             each, in the epochs after the first; each worker has the recipe's batch.
data wait    share of the cheapest recipe's steps that went by waiting for batches, two workers,
             epochs after the first; the training's very first step has a figure of its own.
overhead     the same function on as many processes of torchrun over gloo runs at the same time and
             takes turns of two seconds with Ray's: while one runs, every process of the other is
             stopped. The mean of neighbouring turns' ratios of seconds per step, with its 95 %
             interval; epochs after the first. Beside it the cores that all of Ray's processes take
             for two workers that sleep: what a step under Ray has to pay for on busy cores.
rounds       Ray and torchrun one after the other, each first every other time: the ratio of their
             steps again, which is as good as the machine is calm.
start-up     of the first, second and third of those Ray fits in this process, from the call of the
             fit to the function (process starts, imports, process group) and from there to the
             first step (the fit's own imports, data, what is fitted on it, the model); and the CPU
             seconds of all processes until then. Ray's own start is a figure of its own.

CPU seconds say more than the wall clock on a busy machine; the load averages are in the figures.
Ray adds work to a step and takes none away: an overhead that is below zero by more than the goal
allows above it shows that the two were not treated alike, and then counts as not measured. What
was seen is in the figures.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch

from infra.cluster import ClusterConfig, ray_instance, stop_ray
from tests.benchmarks.result_line import Goal, print_result
from tests.benchmarks.train_runs import Load, Taken, idle_cores, prepare, under_ray, under_torchrun
from tests.benchmarks.train_turns import in_turns

_OVERHEAD_LIMIT = 0.03
_IDLE_SECONDS = 20.0
GOALS = (
    Goal(figure="data_wait_share", op="<=", limit=0.05),
    Goal(figure="ray_overhead", op="<=", limit=_OVERHEAD_LIMIT),
    Goal(figure="second_fit_startup_seconds", op="<=", limit=15.0),
)
WORKERS = (1, 2, 4)
FITS = ("first", "second", "third")
_PRODUCT_WIDTH, _PRODUCTS = 1024, 9


def core_flops() -> float:
    """Return what one core does per CPU second in a large float32 product, at its median."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    left = torch.randn(_PRODUCT_WIDTH, _PRODUCT_WIDTH)
    seconds = []
    for _ in range(_PRODUCTS):
        started = time.process_time()
        torch.mm(left, left)
        seconds.append(time.process_time() - started)
    torch.set_num_threads(threads)
    return 2 * _PRODUCT_WIDTH**3 / median(seconds)


def limit_seconds(load: Load, *, flops: float) -> float:
    """Return the least time of a step, if products were all of it.

    Args:
        load: What is trained.
        flops: What a core does per second.
    """
    return load.event_flops * load.step_events / (flops * min(load.workers, load.cpus))


def limits(loads: Sequence[Load], *, flops: float) -> dict[str, float | None]:
    """Print and return each load's limit, before anything is trained."""
    figures: dict[str, float | None] = {"core_gflops": flops / 1e9}
    print(f"one core: {flops / 1e9:.1f} GFLOP/s")
    for load in loads:
        limit = limit_seconds(load, flops=flops)
        name = f"{load.recipe}_{load.workers}"
        figures[f"{name}_limit_step_seconds"] = limit
        print(
            f"{load.recipe}, {load.workers} workers x {load.threads} threads: "
            f"{load.step_events} events x {load.event_flops / 1e6:.2f} MFLOP a step, "
            f"at least {limit:.4f} s, at most {load.step_events / limit:,.0f} events/s",
            flush=True,
        )
    return figures


def throughput(loads: Sequence[Load], *, folder: Path, flops: float) -> dict[str, float | None]:
    """Train each load once on Ray and return its figures."""
    figures: dict[str, float | None] = {}
    for load in loads:
        name = f"{load.recipe}_{load.workers}"
        found = under_ray(load, prepare(load, folder / f"{name}-in"), folder=folder, name=name)
        figures |= {
            f"{name}_step_seconds": found.step_seconds,
            f"{name}_step_cpu_seconds": found.step_cpu_seconds,
            f"{name}_events_per_second": load.step_events / found.step_seconds,
            f"{name}_limit_share": limit_seconds(load, flops=flops) / found.step_seconds,
            f"{name}_wait_share": found.wait_share,
        }
        print(f"{name}: {load.step_events / found.step_seconds:,.0f} events/s", flush=True)
    return figures


def compared(ray: Sequence[Taken], bare: Sequence[Taken]) -> dict[str, float | None]:
    """Return the figures of trainings that took turns under Ray and under torchrun."""
    pairs = list(zip(ray, bare, strict=True))
    ratio = median(one.step_seconds / other.step_seconds for one, other in pairs)
    figures: dict[str, float | None] = {
        "data_wait_share": median(taken.wait_share for taken in ray),
        "first_step_seconds": median(taken.first_step_seconds for taken in ray),
        "ray_step_seconds": median(taken.step_seconds for taken in ray),
        "torchrun_step_seconds": median(taken.step_seconds for taken in bare),
        "ray_step_cpu_seconds": median(taken.step_cpu_seconds for taken in ray),
        "torchrun_step_cpu_seconds": median(taken.step_cpu_seconds for taken in bare),
        "ray_step_ratio": ratio,
        "ray_cpu_overhead": median(
            one.step_cpu_seconds / other.step_cpu_seconds for one, other in pairs
        )
        - 1,
        "torchrun_startup_seconds": median(taken.startup_seconds for taken in bare),
        "torchrun_startup_cpu_seconds": median(taken.startup_cpu_seconds for taken in bare),
    }
    for name, taken in zip(FITS, ray, strict=False):
        figures[f"{name}_fit_startup_seconds"] = taken.startup_seconds
        figures[f"{name}_fit_before_function_seconds"] = taken.before_function_seconds
        figures[f"{name}_fit_to_first_step_seconds"] = taken.to_first_step_seconds
        figures[f"{name}_fit_startup_cpu_seconds"] = taken.startup_cpu_seconds
    return figures


def rounds(load: Load, *, number: int, folder: Path) -> dict[str, float | None]:
    """Train under Ray and under torchrun in turn, each first every other time."""
    prepared = prepare(load, folder / "rounds-in")
    found: dict[str, list[Taken]] = {"ray": [], "torchrun": []}
    ways = {"ray": under_ray, "torchrun": under_torchrun}
    for turn in range(number):
        for way in sorted(ways, reverse=turn % 2 == 1):
            taken = ways[way](load, prepared, folder=folder, name=f"{way}-{turn}")
            found[way].append(taken)
            print(
                f"round {turn} {way:<9} {taken.step_seconds:.4f} s and "
                f"{taken.step_cpu_seconds:.4f} CPU s a step, start-up "
                f"{taken.before_function_seconds:.1f} + {taken.to_first_step_seconds:.1f} s "
                f"({taken.startup_cpu_seconds:.1f} CPU s)",
                flush=True,
            )
    return compared(found["ray"], found["torchrun"])


def measured_overhead(load: Load, *, folder: Path, seconds: float) -> dict[str, float | None]:
    """Train under Ray and under torchrun in turns and return Ray's overhead, and if it can be."""
    prepared = prepare(load, folder / "turns-in")
    figures = in_turns(load, prepared, folder=folder, seconds=seconds)
    figures["ray_idle_cores"] = idle_cores(load.workers, folder=folder, seconds=_IDLE_SECONDS)
    return figures | {"ray_overhead": possible(figures["ray_turns_overhead"])}


def possible(overhead: float | None) -> float | None:
    """Return an overhead, or None where it is so far below zero that it was not measured."""
    return overhead if overhead is not None and overhead >= -_OVERHEAD_LIMIT else None


def main() -> int:
    """Run the benchmark; return 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog="make bench BENCH=train", description=__doc__)
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--cheapest", default="toy")
    parser.add_argument("--workers", type=int, nargs="+", default=list(WORKERS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--turn-seconds", type=float, default=2.0)
    parser.add_argument("--turn-steps", type=int, default=300, help="of each of five epochs")
    chosen = parser.parse_args()
    cpus = os.cpu_count() or 1
    cheapest = Load(
        recipe=chosen.cheapest, workers=2, cpus=cpus, steps=chosen.steps, epochs=chosen.epochs
    )
    loads = [replace(cheapest, recipe=chosen.recipe, workers=count) for count in chosen.workers]
    # A figure that too few rounds or turns leave open is not measured, and its goal not met.
    figures: dict[str, float | None] = {goal.figure: None for goal in GOALS}
    figures["load_before"] = os.getloadavg()[0]
    flops = core_flops()
    figures |= limits([cheapest, *loads], flops=flops)
    with TemporaryDirectory() as name:
        folder, started = Path(name), time.perf_counter()
        ray_instance(ClusterConfig(cpus=cpus))
        figures["ray_start_seconds"] = time.perf_counter() - started
        in_turn = replace(cheapest, steps=chosen.turn_steps, epochs=5)
        figures |= measured_overhead(in_turn, folder=folder, seconds=chosen.turn_seconds)
        figures |= rounds(cheapest, number=chosen.rounds, folder=folder)
        figures |= throughput(loads, folder=folder, flops=flops)
        stop_ray()
    figures["load_after"] = os.getloadavg()[0]
    return 0 if print_result("train", figures, goals=GOALS) else 1


if __name__ == "__main__":
    sys.exit(main())
