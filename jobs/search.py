"""The command line: trials of one model's recipe, a table of them, and the best values."""

import json
import sys
from pathlib import Path
from typing import Any

from infra.errors import UserError
from infra.full_disk import WHOLE, told_if_full
from infra.run_lock import run_lock
from infra.settings import Settings
from jobs.run import freeze_manifest, prepare_dagster_home
from pipelines.sources.errors import SourceError

_ASSET = "recipe_search"


def main() -> int:
    """Search and show what was found; return 0, 1 if a step failed, 2 on bad input."""
    try:
        config = read_arguments(sys.argv[1:])
        settings = Settings.from_env()
        with (
            told_if_full(settings.home, state=WHOLE),
            run_lock(settings.workspace, what="make search"),
        ):
            return _run(settings, config)
    except (UserError, SourceError) as error:
        sys.stderr.write(f"ranklake: {error}\n")
        return 2


def read_arguments(arguments: list[str]) -> dict[str, Any]:
    """Return the asset's configuration.

    Args:
        arguments: Model, trials, "1" for a population, "1" for asha, recipe and seed; each may be
            empty or left out.

    Raises:
        UserError: If the model is unknown, a number is none, or both methods are asked for.
    """
    from infra.searched_models import searched_model

    given = [each.strip() for each in arguments]
    model, trials, population, asha, recipe, seed = [*given, "", "", "", "", "", ""][:6]
    config: dict[str, Any] = {"model": model or "ranker"}
    searched_model(config["model"])
    if population == asha == "1":
        raise UserError("PBT=1 and ASHA=1 are two methods", remedy="set one of them")
    if population == "1" or asha == "1":
        config["method"] = "population" if population == "1" else "asha"
    for name, text, least in (("TRIALS", trials, 1), ("SEED", seed, 0)):
        if text:
            config[name.lower()] = _whole(name, text, least=least)
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
    return [
        *lines,
        "",
        f"best: trial {found['best']['trial']}, {best}",
        f"mlflow run of the search: {found['mlflow_run']}",
        f"run configuration that trains with it: {json.dumps(found['run_config'])}",
    ]


def _run(settings: Settings, config: dict[str, Any]) -> int:
    from assets.model_data import PROMPT_TABLES, RANKER_TABLES
    from infra.results import load_result, result_path
    from jobs.one_asset import materialise_asset

    prepare_dagster_home(settings)
    sys.stdout.write(f"ranklake: source {settings.source}, data home {settings.home}\n")
    sys.stdout.flush()
    freeze_manifest(settings)
    tables = RANKER_TABLES if config["model"] == "ranker" else PROMPT_TABLES
    result = materialise_asset(settings, _ASSET, job="search", tables=tables, config=config)
    if not result.success:
        from jobs.closing import failure_of

        sys.stderr.write(f"ranklake: {failure_of(result)}\n")
        return 1
    name = f"search_{config['model']}"
    found = load_result(settings, name)
    assert found is not None
    kept = str(result_path(settings, name))
    line = {"search": config["model"], **found["best"], "run": found["mlflow_run"], "kept": kept}
    sys.stdout.write("\n".join(["", *report_lines(found), json.dumps(line), ""]))
    return 0


def _whole(name: str, text: str, *, least: int) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise UserError(f"{name} must be a whole number of at least {least}, not {text!r}")
    return int(text)


def _by_score(row: dict[str, Any]) -> tuple[bool, float]:
    return row["score"] is None, row["score"] or 0.0


def _row(cells: list[str]) -> str:
    return " ".join(f"{cell:>17}" for cell in cells[:-1]) + f"  {cells[-1]}".rstrip()


def _note(row: dict[str, Any]) -> str:
    if row["failure"] is not None:
        return row["failure"]
    taken = [f"{t} at epoch {e}" for e, t in enumerate(row["taken_from"]) if t is not None]
    return f"took over from trial {', '.join(taken)}" if taken else ""


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    sys.exit(main())
