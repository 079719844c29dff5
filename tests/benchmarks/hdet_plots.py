"""Learning rates of every replica and parameter group over the steps, one picture per method."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml.ranking.leaderboard.cells import Cell
from tests.benchmarks.hdet_board import Line, Start
from tests.benchmarks.hdet_methods import FACTORS

GROUPS = ("embedding", "dense", "no_decay")  # of `parameter_groups`, in their order


def draw_traces(starts: Sequence[Start], lines: Mapping[Cell, Line], *, folder: Path) -> list[Path]:
    """Draw the traces that the ledger keeps: a row per group, a column per start.

    Args:
        starts: Fits of one source.
        lines: Their lines.
        folder: Where the pictures go; made if it is not there.

    Returns:
        The files, SVG.
    """
    found: dict[str, dict[int, Line]] = {}
    for start in starts:
        line = lines.get(start.cell)
        if line is not None and len(line["trace"]) > 1:
            found.setdefault(start.method.name, {})[start.place] = line
    folder.mkdir(parents=True, exist_ok=True)
    return [
        _draw(by_place, folder=folder, name=f"{line_source(by_place)}_{name}")
        for name, by_place in found.items()
    ]


def line_source(lines: Mapping[int, Line]) -> str:
    """Return the source of some lines, fit for a file's name."""
    return re.sub(r"\W", "_", next(iter(lines.values()))["source"])


def _draw(lines: Mapping[int, Line], *, folder: Path, name: str) -> Path:
    """Draw one method."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib.figure import Figure

    places = sorted(lines)
    num_groups = len(lines[places[0]]["trace"][0]["multipliers"])
    figure = Figure(figsize=(2.6 * len(places) + 0.6, 2.1 * num_groups + 0.6), layout="constrained")
    axes = figure.subplots(num_groups, len(places), sharex=True, sharey=True, squeeze=False)
    for column, place in enumerate(places):
        for group in range(num_groups):
            _draw_group(axes[group][column], lines[place], group=group)
        axes[0][column].set_title(f"start x{FACTORS[place]:g}", fontsize=9)
        axes[-1][column].set_xlabel("step")
    for group in range(num_groups):
        label = GROUPS[group] if num_groups == len(GROUPS) else f"group {group}"
        axes[group][0].set_ylabel(f"{label}: rate")
    figure.suptitle(f"{name}: replicas (points), peak x learned factor (line)", fontsize=9)
    path = folder / f"{name}.svg"
    figure.savefig(path, format="svg", metadata={"Date": None})
    return path


def _draw_group(axes: Any, line: Line, *, group: int) -> None:
    """Draw the replicas as points, and the learned factor on the envelope as a line."""
    trace = line["trace"]
    steps = [sync["step"] for sync in trace]
    for replica in range(len(trace[0]["rates"])):
        rates = [sync["rates"][replica][group] for sync in trace]
        axes.plot(steps, rates, ".", markersize=3)
    learned = [line["rate"] * sync["multipliers"][group] for sync in trace]
    axes.plot(steps, learned, "-", color="#7a7f87", linewidth=1)
    axes.set_yscale("log")
    axes.grid(color="#e6eaef")
