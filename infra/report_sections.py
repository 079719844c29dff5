"""Turn results into the report's sections; a result that is missing is said to be missing."""

from collections.abc import Mapping, Sequence
from typing import Any

from infra import figures
from infra.lake_sizes import TableSize
from infra.report_page import Figure, Grid, Section, number

Result = Mapping[str, Any]
_MODEL_NAMES = {
    "ranker": "AttnMVP ranker",
    "logistic_regression": "logistic regression",
    "popularity_position": "popularity with position",
    "base_rate": "base rate",
    "reachable": "reachable reference",
    "true": "true probability",
}


_REFERENCES = (
    " The reachable reference is the best prediction from the visible history, the true "
    "probability is what the simulated feed planted."
)


def _numbers(*columns: int) -> frozenset[int]:
    return frozenset(columns)


def _interval(found: Result, digits: int = 4) -> str:
    return f"[{number(found['low'], digits)}, {number(found['high'], digits)}]"


def ranking_section(result: Result | None) -> Section:
    """Show the ranker beside its rivals and references, per action, and its calibration."""
    if result is None:
        return Section(title="Ranking", text="This source cannot feed the ranker.")
    models, closed = result["models"], result["closed_fraction"]
    rows = tuple(
        (
            _MODEL_NAMES[name],
            number(models[name]["estimate"]),
            _interval(models[name]),
            number(closed.get(name), 3),
            _paired(result["differences"].get(name)),
        )
        for name in _MODEL_NAMES
        if name in models
    )
    bars = {
        _MODEL_NAMES[n]: models[n]["estimate"] for n in models if n not in ("reachable", "true")
    }
    lines = {n: models[n]["estimate"] for n in ("reachable", "true") if n in models}
    return Section(
        title="Ranking",
        text=(
            f"Normalised entropy of {result['primary']!r} on the test period: 1 is the base rate, "
            f"lower is better. {result['targets']:,} impressions of {result['users']:,} users; "
            f"intervals resample users.{_REFERENCES if lines else ''}"
        ),
        grids=(
            Grid(
                header=("model", "NE", "95 % interval", "closed", "ranker minus model"),
                rows=rows,
                number_columns=_numbers(1, 2, 3, 4),
            ),
            _action_grid(result["actions"]),
        ),
        figures=(
            Figure(
                svg=figures.bars(bars, label="normalised entropy", references=lines),
                caption="Normalised entropy beside the references (dashed).",
            ),
            Figure(svg=_calibration(result["calibration"]), caption="Calibration of the ranker."),
        ),
    )


def _paired(difference: Result | None) -> str:
    if difference is None:
        return "–"
    return f"{number(difference['estimate'])} {_interval(difference)}"


def _calibration(bins: Sequence[Result]) -> str:
    points = ([b["predicted"] for b in bins], [b["observed"] for b in bins])
    return figures.lines(
        {"ranker": points},
        x_label="mean predicted probability",
        y_label="observed rate",
        diagonal=True,
    )


def _action_grid(actions: Mapping[str, Result]) -> Grid:
    columns = ("ne", "auc", "gauc", "ece", "observed_over_expected")
    rows = tuple(
        (
            name,
            number(found["positives"]),
            *(("too few",) * 5 if found["too_few"] else (number(found[c]) for c in columns)),
        )
        for name, found in actions.items()
    )
    return Grid(
        caption="Per action; fewer than 200 positives are too few to judge",
        header=("action", "positives", "NE", "AUC", "GAUC", "ECE", "O/E"),
        rows=rows,
        number_columns=_numbers(1, 2, 3, 4, 5, 6),
    )


def retrieval_section(result: Result | None) -> Section:
    """Show the retriever's recall beside popularity and item-kNN."""
    if result is None:
        return Section(title="Retrieval", text="This source cannot feed the retriever.")
    models = result["models"]
    rows = tuple(
        (
            name.replace("_", " "),
            number(m["recall"]["estimate"]),
            _interval(m["recall"]),
            number(m["ndcg"]["estimate"]),
        )
        for name, m in models.items()
    )
    return Section(
        title="Retrieval",
        text=(
            f"Recall@{result['k']} of the next engaged item over the full catalogue of "
            f"{result['catalogue']:,} items, {result['users']:,} users. {result['rule']}"
        ),
        grids=(
            Grid(
                header=("model", f"Recall@{result['k']}", "95 % interval", f"NDCG@{result['k']}"),
                rows=rows,
                number_columns=_numbers(1, 2, 3),
            ),
        ),
        figures=(
            Figure(
                svg=figures.bars(
                    {n.replace("_", " "): m["recall"]["estimate"] for n, m in models.items()},
                    label=f"Recall@{result['k']}",
                ),
                caption="The retriever beside its rivals.",
            ),
        ),
    )


def prompt_ranker_section(result: Result | None) -> Section:
    """Show the prompt ranker's entropy and AUC beside popularity."""
    if result is None:
        return Section(title="Prompt ranker", text="This source cannot feed the prompt ranker.")
    rows = tuple(
        (name.replace("_", " "), number(m["ne"]), number(m["auc"]["estimate"]), _interval(m["auc"]))
        for name, m in result["models"].items()
    )
    return Section(
        title="Prompt ranker",
        text=(
            f"{result['rows']:,} impressions of {result['users']:,} users of the test period, "
            "chosen blind to their outcome; the score is the softmax over yes and no at the "
            "answer slot, in one forward pass."
        ),
        grids=(
            Grid(
                header=("model", "NE", "AUC", "95 % interval"),
                rows=rows,
                number_columns=_numbers(1, 2, 3),
            ),
        ),
    )


def training_section(results: Mapping[str, Result]) -> Section:
    """Show the trainings' times, the replicas' learning rates, and their differences."""
    rows = tuple(
        (
            name,
            result["recipe"],
            number(result["parameters"]),
            number(result["seconds"], 0),
            number(100 * result["startup_seconds"] / max(result["seconds"], 1e-9), 0) + " %",
            number(result["difference_before"], 6),
            number(result["difference_after"], 6),
        )
        for name, result in results.items()
    )
    header = (
        "model",
        "recipe",
        "parameters",
        "seconds",
        "start-up share",
        "replica difference before a converge",
        "after",
    )
    drawn = tuple(
        Figure(
            svg=figures.panels(
                {
                    group: {f"replica {r}": (t["steps"], t["rates"]) for r, t in traces.items()}
                    for group, traces in result["rate_traces"].items()
                },
                x_label="step",
                y_label="learning rate",
            ),
            caption=f"Learning rate of each replica in each parameter group, up to every "
            f"converge: {name}.",
        )
        for name, result in results.items()
        if result.get("rate_traces")
    )
    return Section(
        title="Training",
        text="HDET: the replicas of a training differ in their learning rate and are averaged at "
        "every converge. The largest parameter difference is above zero before it and zero after.",
        grids=(Grid(header=header, rows=rows, number_columns=_numbers(2, 3, 4, 5, 6)),),
        figures=drawn,
    )


def experts_section(result: Result | None) -> Section:
    """Show expert loads before and after Replicate-and-Quantize."""
    if result is None:
        return Section(title="Mixture of experts", text="There is no prompt ranker to optimise.")
    rows = tuple(
        (
            str(place),
            number(layer["lis_before"]),
            number(layer["lis_after"]),
            number(layer["lis_instances"]),
        )
        for place, layer in enumerate(result["layers"])
    )
    drawn = tuple(
        Figure(
            svg=figures.paired_bars(
                {"before": layer["loads_before"], "after": layer["loads_after"]},
                x_label="expert",
                y_label="share of tokens per instance",
            ),
            caption=f"Load of the busiest instance of each expert, layer {place}.",
        )
        for place, layer in enumerate(result["layers"])
    )
    return Section(
        title="Mixture of experts",
        text=(
            "Replicate-and-Quantize, planned on validation traffic and measured on test traffic "
            "with the real router. A load-imbalance score (LIS) of 1 is even. Memory of the "
            f"experts: {result['bytes_before']:,} bytes before, {result['bytes_after']:,} after."
        ),
        grids=(
            Grid(
                header=("layer", "LIS before", "LIS after", "LIS over instances"),
                rows=rows,
                number_columns=_numbers(1, 2, 3),
            ),
        ),
        figures=drawn,
    )


def semantic_id_section(result: Result | None) -> Section:
    """Show uniqueness per level and the lifts."""
    if result is None:
        return Section(title="Semantic IDs", text="There are no semantic IDs.")
    levels = {f"{i + 1} levels": share for i, share in enumerate(result["share_per_level"])}
    lifts = tuple((name, number(value)) for name, value in result["headline"].items())
    return Section(
        title="Semantic IDs",
        text=(
            f"{result['num_items']:,} items with {result['num_distinct_texts']:,} distinct texts; "
            f"{len(result['duplicate_items']):,} texts belong to more than one item."
        ),
        grids=(Grid(header=("figure", "value"), rows=lifts, number_columns=_numbers(1)),),
        figures=(
            Figure(
                svg=figures.bars(levels, label="share of texts with an ID of their own"),
                caption="Uniqueness by the number of levels read.",
            ),
        ),
    )


def tables_section(sizes: Sequence[TableSize]) -> Section:
    """Show the size of every table."""
    rows = tuple(
        (s.name, s.row, number(s.rows), f"{s.bytes / 2**20:.1f}", number(s.files), str(s.version))
        for s in sizes
    )
    return Section(
        title="Tables",
        grids=(
            Grid(
                header=("table", "one row is", "rows", "MiB", "files", "version"),
                rows=rows,
                number_columns=_numbers(2, 3, 4, 5),
            ),
        ),
    )
