"""Draw the report's figures with matplotlib, each as one inline SVG string."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PALETTE = ("#1f6f8b", "#d1803b", "#6b4e9b", "#3c8d5a", "#b3455a", "#7a7f87")
_REFERENCE = "#1a7f4b"


def _start(width: float, height: float) -> tuple["Figure", "Axes"]:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "ranklake",
            "font.family": "sans-serif",
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": "#9aa4b1",
            "axes.grid": True,
            "grid.color": "#e6eaef",
        }
    )
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: "Figure") -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def bars(
    values: Mapping[str, float], *, label: str, references: Mapping[str, float] | None = None
) -> str:
    """Draw one horizontal bar per name, and a dashed line per reference.

    Args:
        values: Name to value, drawn from top to bottom.
        label: Name of the value axis.
        references: Name to value of the lines to compare with.
    """
    references = references or {}
    figure, axes = _start(8.4, 0.6 + 0.36 * (len(values) + 1 + len(references)))
    names = list(values)[::-1]
    axes.barh(names, [values[name] for name in names], color=_PALETTE[0], height=0.62)
    for place, name in enumerate(names):
        axes.annotate(
            f"{values[name]:.4f}",
            (values[name], place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
        )
    for place, (name, value) in enumerate(sorted(references.items(), key=lambda pair: pair[1])):
        axes.axvline(value, color=_REFERENCE, linestyle="--", linewidth=1.2)
        height = len(names) - 0.42 + 0.42 * place  # neighbours must not write over each other
        axes.text(value, height, f" {name} {value:.3f}", color=_REFERENCE, ha="left")
    everything = [*values.values(), *references.values()]
    spread = max(everything) - min(everything) or 1.0
    axes.set_xlim(max(0.0, min(everything) - 0.25 * spread), max(everything) + 0.18 * spread)
    axes.set_xlabel(label)
    axes.grid(axis="y", visible=False)
    return _svg(figure)


def lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    x_label: str,
    y_label: str,
    diagonal: bool = False,
    log_y: bool = False,
) -> str:
    """Draw one line per name over its (x, y) points; `diagonal` adds the line y = x."""
    figure, axes = _start(8.4, 3.2)
    for place, (name, (x, y)) in enumerate(series.items()):
        color = _PALETTE[place % len(_PALETTE)]
        style = "o-" if diagonal else "-"
        axes.plot(x, y, style, color=color, label=name, linewidth=1.5, markersize=4)
    if diagonal:
        top = max(max([*x, *y]) for x, y in series.values())
        axes.plot([0, top], [0, top], color="#9aa4b1", linestyle=":", label="perfect")
    if log_y:
        axes.set_yscale("log")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.legend(frameon=False)
    return _svg(figure)


def panels(
    groups: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
    *,
    x_label: str,
    y_label: str,
) -> str:
    """Draw a panel per group, side by side on one scale, with a line per name in each.

    Args:
        groups: Group name to name to (x, y) points; the names are those of the first group.
        x_label: Name of the horizontal axes.
        y_label: Name of the vertical axis.
    """
    figure, first = _start(8.4, 3.0)
    first.remove()
    places = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for axes, (group, series) in zip(places, groups.items(), strict=True):
        for place, (name, (x, y)) in enumerate(series.items()):
            color = _PALETTE[place % len(_PALETTE)]
            axes.plot(x, y, "-", color=color, label=name, linewidth=1.5)
        axes.set_title(group.replace("_", " "), fontsize=10)
        axes.set_xlabel(x_label)
    places[0].set_ylabel(y_label)
    places[-1].legend(frameon=False)
    return _svg(figure)


def paired_bars(groups: Mapping[str, Sequence[float]], *, x_label: str, y_label: str) -> str:
    """Draw the values of each group side by side over their positions.

    Args:
        groups: Group name to values; all groups have the same length.
        x_label: Name of the position axis.
        y_label: Name of the value axis.
    """
    figure, axes = _start(8.4, 3.0)
    width = 0.8 / max(1, len(groups))
    for place, (name, values) in enumerate(groups.items()):
        where = [i + (place - (len(groups) - 1) / 2) * width for i in range(len(values))]
        axes.bar(where, list(values), width=width, label=name, color=_PALETTE[place])
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(axis="x", visible=False)
    axes.legend(frameon=False)
    return _svg(figure)
