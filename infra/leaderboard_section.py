"""Show a leaderboard: the report's section and the terminal's table are made of the same grids."""

from collections.abc import Iterable, Mapping
from typing import Any

from infra import figures
from infra.report_page import Figure, Grid, Section, number

Result = Mapping[str, Any]
_MISSING, _TOO_FEW = "missing", "too few"
_METRICS = {
    "ne": "NE",
    "auc": "AUC",
    "gauc": "GAUC",
    "ece": "Calibration error (ECE, 15 bins of equal mass)",
    "observed_over_expected": "Observed over expected (O/E)",
}
_COMPLETE, _FAILED = "complete", "failed"


def leaderboard_section(result: Result | None) -> Section:
    """Show every recipe of a source, what was claimed, and what is missing."""
    if result is None:
        return Section(title="Leaderboard", text="This source has no leaderboard yet.")
    grids = (
        recipe_grid(result),
        failure_grid(result),
        cost_grid(result),
        claim_grid(result),
    )
    return Section(
        title="Leaderboard",
        text=_text(result),
        grids=(*filled(*grids), *_action_grids(result), *_slice_grids(result)),
        figures=_figures(result),
    )


def recipe_grid(result: Result) -> Grid:
    """Return the recipes by rising NE of the primary action on test."""
    has_reference = "closed_fraction_best" in result["figures"]
    closed = ("closed", "95 % interval") if has_reference else ()
    rows = []
    for name in result["ranking"]:
        found = result["recipes"][name]
        score = found["actions"].get(result["config"]["primary"], {})
        is_shown = found["state"] == _COMPLETE
        cells = (
            _value(score, "ne"),
            _interval(score),
            *(_closed(found["closed"]) if has_reference else ()),
            *(_value(score, metric) for metric in ("auc", "gauc", "ece")),
            _value(score, "observed_over_expected"),
        )
        cells = cells if is_shown else (_MISSING,) * len(cells)
        rows.append((_words(name), *cells, _state(found)))
    header = ("recipe", "NE", "95 % interval", *closed, "AUC", "GAUC", "ECE", "O/E")
    header = (*header, "state")
    return Grid(
        caption=f"Test period, {result['config']['primary']}",
        header=header,
        rows=tuple(rows),
        number_columns=frozenset(range(1, len(header) - 1)),
    )


def cost_grid(result: Result) -> Grid:
    """Return what each recipe costs, means over the seeds, and the setting that was chosen."""
    rows = []
    for name in result["ranking"]:
        found = result["recipes"][name]
        per_thousand = found["score_seconds_per_1000"]
        peak = found["peak_bytes"]
        cells = (
            number(None if found["num_parameters"] is None else round(found["num_parameters"])),
            number(found["train_seconds"], 1),
            number(found["epochs"], 1),
            number(None if per_thousand is None else per_thousand * 1000, 2),
            number(None if peak is None else peak / 2**20, 0),
        )
        cells = cells if found["state"] == _COMPLETE else (_MISSING,) * len(cells)
        choice = (found["trial"] or "–", number(found["validation_ne"]))
        rows.append((_words(name), *cells, *choice))
    return Grid(
        caption="Costs on one thread (ms per 1,000 scored events), and the choice",
        header=(
            "recipe",
            "parameters",
            "training, s",
            "epochs",
            "ms per 1,000",
            "peak, MiB",
            "chosen trial",
            "validation NE",
        ),
        rows=tuple(rows),
        number_columns=frozenset({1, 2, 3, 4, 5, 7}),
    )


def claim_grid(result: Result) -> Grid:
    """Return each claim of significance with its verdict."""
    rows = tuple(
        (
            f"{_words(claim['recipe'])} below {_words(claim['rival'])}",
            number(claim["value"]),
            _interval(claim),
            _probability(claim["p"]),
            _probability(claim["holm"]),
            claim["verdict"],
            claim["source"],
        )
        for claim in result["claims"]
    )
    return Grid(
        caption="Claims: NE of a recipe minus its rival's, paired by user",
        header=("claim", "difference", "95 % interval", "p", "p, Holm", "verdict", "claimed by"),
        rows=rows,
        number_columns=frozenset({1, 2, 3, 4}),
    )


def failure_grid(result: Result) -> Grid:
    """Return why recipes failed; RETRY=1 fits their cells once more."""
    rows = tuple(
        (_words(name), result["recipes"][name]["error"])
        for name in result["ranking"]
        if result["recipes"][name]["error"] is not None
    )
    return Grid(
        caption="Cells that failed (make leaderboard RETRY=1 tries them again)",
        header=("recipe", "the newest error"),
        rows=rows,
    )


def filled(*grids: Grid) -> tuple[Grid, ...]:
    """Return the grids that have rows."""
    return tuple(grid for grid in grids if grid.rows)


def text_lines(grid: Grid) -> list[str]:
    """Return a grid as aligned text for a terminal."""
    table = [grid.header, *grid.rows]
    widths = [max(len(row[place]) for row in table) for place in range(len(grid.header))]

    def line(row: Iterable[str]) -> str:
        cells = (
            cell.rjust(width) if place in grid.number_columns else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  " + "  ".join(cells).rstrip()

    return [grid.caption, *(line(row) for row in table), ""]


def _text(result: Result) -> str:
    config, counts = result["config"], result["counts"]
    rival = _words(result["rival"]) if result["rival"] else "not known yet"
    left = counts["cells"] - counts["cells_done"]
    return (
        f"Every recipe tries the same number of settings at seed {config['seeds'][0]}; the one "
        f"with the lowest NE of {config['primary']!r} on validation is fitted with "
        f"{len(config['seeds'])} seeds, and each fit opens the test split once. "
        f"{counts['targets']:,} impressions of {counts['users']:,} users; means over seeds, "
        "intervals resample users and seeds. Best classical baseline on validation, the rival of "
        f"every recipe: {rival}. A claim holds if its p-value after Holm's correction over all "
        "claims is at most 0.05 and its interval leaves zero out. "
        f"{counts['cells_done']} of {counts['cells']} cells are measured"
        f"{f', {left} are missing' if left else ''}; data version {config['data']}."
        + _others(counts["other_lines"])
    )


def _others(lines: int) -> str:
    if not lines:
        return ""
    return f" {lines:,} lines of the ledger are of other code or data and are not shown."


def _action_grids(result: Result) -> tuple[Grid, ...]:
    actions = _first(result, "actions")
    if len(actions) < 2:
        return ()
    return tuple(
        _metric_grid(result, part="actions", columns=actions, metric=metric) for metric in _METRICS
    )


def _slice_grids(result: Result) -> tuple[Grid, ...]:
    slices = _first(result, "slices")
    if not slices:
        return ()
    return tuple(
        _metric_grid(result, part="slices", columns=slices, metric=metric)
        for metric in ("ne", "auc")
    )


def _metric_grid(result: Result, *, part: str, columns: Mapping[str, Result], metric: str) -> Grid:
    """Return one metric of every recipe per action or per slice of the primary action."""
    counted = tuple(f"{_slice(result, name)} ({c['positives']:,})" for name, c in columns.items())
    rows = []
    for name in result["ranking"]:
        found = result["recipes"][name]
        cells = (
            _value(found[part][column], metric) if found["state"] == _COMPLETE else _MISSING
            for column in columns
        )
        rows.append((_words(name), *cells))
    of_what = "per action" if part == "actions" else f"of {result['config']['primary']} per slice"
    return Grid(
        caption=f"{_METRICS[metric]} {of_what} (positives; fewer than 200 are too few to judge)",
        header=("recipe", *counted),
        rows=tuple(rows),
        number_columns=frozenset(range(1, len(counted) + 1)),
    )


def _first(result: Result, part: str) -> Mapping[str, Result]:
    """Return the columns that a measured recipe has."""
    found = result["recipes"].values()
    return next((each[part] for each in found if each["state"] == _COMPLETE), {})


def _slice(result: Result, name: str) -> str:
    """Return a slice's name, a surface by its own."""
    kind, _, place = name.rpartition(" ")
    if kind != "surface":
        return name
    names = ("unknown", *result["surfaces"])
    return f"surface {names[int(place)]}" if int(place) < len(names) else name


def _figures(result: Result) -> tuple[Figure, ...]:
    primary = result["config"]["primary"]
    bars = {
        _words(name): result["recipes"][name]["actions"][primary]["ne"]
        for name in result["ranking"]
        if result["recipes"][name]["state"] == _COMPLETE
        and result["recipes"][name]["actions"][primary].get("ne") is not None
    }
    if not bars:
        return ()
    svg = figures.bars(bars, label=f"normalised entropy of {primary}")
    return (Figure(svg=svg, caption="Normalised entropy on test, lower is better."),)


def _value(score: Result, metric: str) -> str:
    return _TOO_FEW if score.get("too_few") else number(score.get(metric))


def _interval(found: Result) -> str:
    if found.get("low") is None:
        return "–"
    return f"[{number(found['low'])}, {number(found['high'])}]"


def _probability(p: float | None) -> str:
    return "< 0.001" if p is not None and p < 0.001 else number(p, 3)


def _closed(found: Result | None) -> tuple[str, str]:
    if found is None:
        return "–", "–"
    return number(found["value"], 3), f"[{number(found['low'], 3)}, {number(found['high'], 3)}]"


def _state(found: Result) -> str:
    if found["state"] == _COMPLETE:
        return "complete"
    if found["state"] == _FAILED:
        return _FAILED
    return f"{found['cells_done']} of {found['cells']} cells"


def _words(name: str) -> str:
    return name.replace("_", " ")
