"""The command line: trials of one model's recipe, a table of them, and the best values."""

import json
import sys
from pathlib import Path
from typing import Any

from infra.errors import UserError
from infra.settings import Settings
from jobs.one_asset import AssetCall, asset_command

_ASSET = "recipe_search"


def main() -> int:
    """Search and show what was found; return 0, 1 if a step failed, 2 on bad input."""
    return asset_command(_read, _show)


def read_arguments(arguments: list[str]) -> dict[str, Any]:
    """Return the asset's configuration.

    Args:
        arguments: Model, trials, "1" for a population, "1" for asha, recipe, seed, and fields with
            commas; each may be empty or left out.

    Raises:
        UserError: If the model is unknown, a number or switch is none, both methods are asked for,
            or there are too few trials for one.
    """
    from infra.search import SearchConfig
    from infra.searched_models import searched_model

    given = [each.strip() for each in arguments]
    model, trials, pbt, asha, recipe, seed, fields = [*given, *[""] * 7][:7]
    config: dict[str, Any] = {"model": model or "ranker"}
    searched_model(config["model"])
    is_population, is_asha = _switch("PBT", pbt), _switch("ASHA", asha)
    if is_population and is_asha:
        raise UserError("PBT=1 and ASHA=1 are two methods", remedy="set one of them")
    if is_population or is_asha:
        config["method"] = "population" if is_population else "asha"
    for name, text, least in (("TRIALS", trials, 1), ("SEED", seed, 0)):
        if text:
            config[name.lower()] = _whole(name, text, least=least)
    try:
        SearchConfig(data=Path(), folder=Path(), **config)
    except ValueError as error:
        raise UserError(str(error)) from error
    if names := [name.strip() for name in fields.split(",") if name.strip()]:
        config["fields"] = names
    return config | ({"recipe": recipe} if recipe else {})


def report_lines(found: dict[str, Any]) -> list[str]:
    """Return the table of the trials, best first, and what to do with the best.

    Args:
        found: What the search kept.
    """
    fields = list(found["best"]["overrides"])
    heads = [field.rpartition(".")[2] for field in fields]
    lines = [_row(["trial", found["monitor"], "epochs", *heads, ""])]
    for row in sorted(found["trials"], key=_by_score):
        score = "failed" if row["score"] is None else f"{row['score']:.5f}"
        values = [f"{row['values'][field]:.4g}" for field in fields]
        lines.append(_row([str(row["trial"]), score, str(row["epochs"]), *values, _note(row)]))
    best = ", ".join(f"{name} {value:.6g}" for name, value in found["best"]["overrides"].items())
    ranges = [_range(name, ends) for name, ends in found["space"].items()]
    trains = "trains with it"
    if found["method"] == "population":
        trains = "trains from the start with the values of the best epoch, not by their course"
    return [
        *lines,
        "",
        f"searched: {', '.join(ranges)}",
        *(f"note: {note}" for note in found["notes"]),
        f"best: trial {found['best']['trial']}, {best}",
        f"mlflow run of the search: {found['mlflow_run']}",
        f"run configuration that {trains}: {json.dumps(found['run_config'])}",
    ]


def _read() -> AssetCall:
    config = read_arguments(sys.argv[1:])
    settings = Settings.from_env()
    from assets.model_data import PROMPT_TABLES, RANKER_TABLES

    return AssetCall(
        command="make search",
        asset=_ASSET,
        job="search",
        tables=RANKER_TABLES if config["model"] == "ranker" else PROMPT_TABLES,
        config=config,
        settings=settings,
    )


def _show(call: AssetCall) -> None:
    from infra.results import load_result, result_path

    model = call.config["model"]
    found = load_result(call.settings, f"search_{model}")
    assert found is not None
    kept = str(result_path(call.settings, f"search_{model}"))
    line = {"search": model, **found["best"], "run": found["mlflow_run"], "kept": kept}
    sys.stdout.write("\n".join(["", *report_lines(found), json.dumps(line), ""]))


def _switch(name: str, text: str) -> bool:
    if text not in ("", "0", "1"):
        raise UserError(f"{name} must be 1, 0 or empty, not {text!r}", remedy=f"write {name}=1")
    return text == "1"


def _whole(name: str, text: str, *, least: int) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise UserError(f"{name} must be a whole number of at least {least}, not {text!r}")
    return int(text)


def _by_score(row: dict[str, Any]) -> tuple[bool, bool, float]:
    return row["score"] is None, row["failure"] is not None, row["score"] or 0.0


def _range(name: str, ends: dict[str, Any]) -> str:
    scale = " by its logarithm" if ends["log"] else ""
    return f"{name} from {ends['low']:.4g} to {ends['high']:.4g}{scale}"


def _row(cells: list[str]) -> str:
    return " ".join(f"{cell:>17}" for cell in cells[:-1]) + f"  {cells[-1]}".rstrip()


def _note(row: dict[str, Any]) -> str:
    if row["failure"] is not None:
        return row["failure"]
    if row["kept"]:
        return "kept from an earlier search"
    taken = [f"{t} at epoch {e}" for e, t in enumerate(row["taken_from"]) if t is not None]
    return f"took over from trial {', '.join(taken)}" if taken else ""


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    sys.exit(main())
