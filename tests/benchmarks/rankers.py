"""How fast each scheme of the sequence ranker trains, beside the operations it cannot do without.

All schemes step on the same data, one event per request (plain causal attention), in rounds a b c
d, a b c d, so that a machine that slows down slows all of them; times are medians, ratios medians
of the ratios within a round. `passes` is forward and backward, `step` also cuts the batch, clips
and updates. An epoch is 500,000 events. Tokens are rows of the attention, two per event if
interleaved. Sizes: `wide` has width 256, 12 layers and 8 heads, `default` the default recipe's.

Run: python -m tests.benchmarks.rankers [--events 256 1024 50] [--sizes wide default] [--rounds 5]
     [--schemes ...] [--compile] [--trace FILE] [--threads N]
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from ml.ranking.sequence_ranker.recipes import default
from tests.benchmarks.rankers_data import ACTIONS
from tests.benchmarks.rankers_flops import SCHEMES, Size, floor_ratio, step_flops
from tests.benchmarks.rankers_gpu import utilisation
from tests.benchmarks.rankers_step import Stepper, StepTimes, Workload
from tests.benchmarks.result_line import Goal, print_result

EPOCH_EVENTS = 500_000
EVENTS = (50, 256, 1024)
GOALS = (
    Goal(figure="wide_1024_attn_mvp_without_lfa", op="<=", limit=0.45),
    Goal(figure="wide_1024_attn_mvp", op="<=", limit=0.48),
    Goal(figure="wide_1024_attn_lfa", op="<=", limit=0.48),
    Goal(figure="gpu_flops_utilisation", op=">=", limit=0.35),
)


def workload(name: str, *, events: int) -> Workload:
    """Return a size with its batch: 2,048 events a step if wide, the recipe's own otherwise.

    Raises:
        ValueError: If there is no such size.
    """
    if name == "wide":
        size = Size(width=256, layers=12, heads=8, head_width=256, num_actions=len(ACTIONS))
        return Workload(name=name, size=size, events=events, batch=max(1, 2048 // events))
    if name == "default":
        recipe = default()
        model = recipe.model
        size = Size(
            width=model.width,
            layers=model.layers,
            heads=model.heads,
            head_width=model.head_width,
            num_actions=len(ACTIONS),
        )
        batch = max(1, recipe.batches.events // events)
        return Workload(name=name, size=size, events=events, batch=batch)
    raise ValueError(f"no size {name!r}; choose wide or default")


def timed_rounds(steppers: dict[str, Stepper], *, rounds: int) -> dict[str, list[StepTimes]]:
    """Step all in turn, once to warm up and then in rounds."""
    for stepper in steppers.values():
        stepper.step()
    times: dict[str, list[StepTimes]] = {name: [] for name in steppers}
    for _ in range(rounds):
        for name, stepper in steppers.items():
            times[name].append(stepper.step())
    return times


def measure(
    load: Workload, *, schemes: tuple[str, ...], rounds: int, compiles: bool = False
) -> dict[str, float | None]:
    """Measure the schemes on one workload, print a row for each, and return the figures."""
    steppers = {scheme: Stepper(scheme, load) for scheme in schemes}
    if compiles:
        torch.compiler.reset()  # or it gives up after eight versions of one block
        compiled = replace(load, compiled=True)
        steppers |= {f"{scheme}*": Stepper(scheme, compiled) for scheme in schemes}
    times = timed_rounds(steppers, rounds=rounds)
    size = load.size
    print(
        f"\n{load.name}: width {size.width}, {size.layers} layers, {size.heads} heads, "
        f"{load.batch} x {load.events} events a step, {torch.get_num_threads()} threads"
        f"{', * = torch.compile' if compiles else ''}"
    )
    print(_HEADING)
    figures: dict[str, float | None] = {}
    for name, steps in times.items():
        row = _row(name, steps, load=load, first=times.get("interleaved"))
        print(_as_text(name, row))
        stem = f"{load.name}_{load.events}_{name.replace('*', '_compiled')}"
        figures |= {f"{stem}_{key}" if key != "ratio" else stem: row[key] for key in row}
    return figures


def _row(
    name: str, steps: list[StepTimes], *, load: Workload, first: list[StepTimes] | None
) -> dict[str, float | None]:
    """Return one scheme's figures; ratios are to the interleaved model, not compiled."""
    scheme = name.rstrip("*")
    events = load.batch * load.events
    passes, whole = median(step.passes for step in steps), median(step.whole for step in steps)
    flops = sum(step_flops(scheme, load.size, events=load.events)) * events
    row: dict[str, float | None] = {"passes_seconds": passes, "step_seconds": whole}
    row["epoch_seconds"] = whole * EPOCH_EVENTS / events
    row["events_per_second"] = events / whole
    row["tokens_per_second"] = events / whole * (2 if scheme == "interleaved" else 1)
    row["gflops"] = flops / passes / 1e9
    row["floor"] = floor_ratio(scheme, load.size, events=load.events)
    row["ratio"] = row["step_ratio"] = None
    if first is not None:
        pairs = list(zip(steps, first, strict=True))
        row["ratio"] = median(own.passes / base.passes for own, base in pairs)
        row["step_ratio"] = median(own.whole / base.whole for own, base in pairs)
    return row


_COLUMNS = {
    "passes_seconds": ("passes s", "9.3f"),
    "ratio": ("ratio", "7.3f"),
    "floor": ("floor", "7.3f"),
    "step_seconds": ("step s", "9.3f"),
    "step_ratio": ("ratio", "7.3f"),
    "events_per_second": ("events/s", "10,.0f"),
    "tokens_per_second": ("tokens/s", "10,.0f"),
    "epoch_seconds": ("epoch s", "9,.0f"),
    "gflops": ("GFLOP/s", "8.1f"),
}
_HEADING = " ".join(
    [f"{'scheme':<22}"]
    + [f"{title:>{form.split('.')[0].rstrip(',')}}" for title, form in _COLUMNS.values()]
)


def _as_text(name: str, row: dict[str, float | None]) -> str:
    """Return one line of the table."""
    cells = [f"{name:<22}"]
    for key, (_, form) in _COLUMNS.items():
        value = row[key]
        cells.append(
            f"{'':>{form.split('.')[0].rstrip(',')}}" if value is None else f"{value:{form}}"
        )
    return " ".join(cells)


def write_trace(load: Workload, *, schemes: tuple[str, ...], path: Path) -> None:
    """Write one step of each scheme as a Chrome trace, each under its scheme's name."""
    steppers = {scheme: Stepper(scheme, load) for scheme in schemes}
    for stepper in steppers.values():
        stepper.step()
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        for scheme, stepper in steppers.items():
            with record_function(f"scheme: {scheme}"):
                stepper.step()
    profiler.export_chrome_trace(str(path))
    print(f"trace of one step per scheme: {path}")


def _arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="rankers")
    parser.add_argument("--events", type=int, nargs="+", default=list(EVENTS))
    parser.add_argument("--sizes", nargs="+", default=["wide", "default"])
    parser.add_argument("--schemes", nargs="+", choices=SCHEMES, default=list(SCHEMES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--trace", type=Path)
    return parser.parse_args()


def main() -> int:
    """Measure every size at every length, or trace one step of each scheme."""
    chosen = _arguments()
    torch.set_num_threads(chosen.threads)
    schemes = tuple(chosen.schemes)
    loads = [workload(name, events=events) for name in chosen.sizes for events in chosen.events]
    if chosen.trace:
        write_trace(loads[0], schemes=schemes, path=chosen.trace)
        return 0
    figures: dict[str, float | None] = {goal.figure: None for goal in GOALS}
    for load in loads:
        figures |= measure(load, schemes=schemes, rounds=chosen.rounds, compiles=chosen.compile)
    figures["gpu_flops_utilisation"] = utilisation(rounds=chosen.rounds)
    rows = tuple(goal.figure for goal in GOALS)
    return 0 if print_result("rankers", figures, goals=GOALS, rows=rows) else 1


if __name__ == "__main__":
    sys.exit(main())
