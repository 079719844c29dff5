"""The command line: every ranking recipe on one source, taken up from the ledger, then a table."""

import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

from infra.errors import UserError
from infra.settings import Settings
from jobs.one_asset import AssetCall, asset_command

# The size of the feed that the committed ledger is about, unless RANKLAKE_FEED_USERS says another.
FEED_USERS = 3_000
_ASSET = "ranking_leaderboard"


def main() -> int:
    """Fit what is missing and show the table; return 0, 1 if a step failed, 2 on bad input."""
    return asset_command(_read, lambda call: print_board(call.settings))


def read_arguments(arguments: list[str]) -> dict[str, Any]:
    """Return the asset's configuration.

    Args:
        arguments: Minutes, recipes with commas, "1" to try failed cells again, and the folder of
            the ledgers; each may be empty or left out.

    Raises:
        UserError: If the minutes are no number of at least 0.
    """
    budget, recipes, retry, ledgers = [*arguments, "", "", "", ""][:4]
    config: dict[str, Any] = {"retry": retry.strip() == "1"}
    if budget.strip():
        try:
            config["budget_minutes"] = float(budget)
        except ValueError:
            config["budget_minutes"] = -1.0
        if not 0 <= config["budget_minutes"] < float("inf"):
            raise UserError(f"BUDGET_MINUTES must be a number of minutes, not {budget!r}")
    if names := [name.strip() for name in recipes.split(",") if name.strip()]:
        config["recipes"] = names
    return config | ({"ledgers": ledgers} if ledgers else {})


def own_feed(settings: Settings) -> Settings:
    """Give the simulated feed of the leaderboard its size and a data home beside that of a run.

    A feed of a stated size, and every other source, stays in the data home that it has.
    """
    if settings.source != "simulated" or settings.feed_users is not None:
        return settings
    os.environ["RANKLAKE_FEED_USERS"] = str(FEED_USERS)
    os.environ["RANKLAKE_JARS"] = str(settings.jar_cache)
    os.environ["RANKLAKE_HOME"] = str(settings.home / "leaderboard")
    return Settings.from_env()


def _read() -> AssetCall:
    config = {**read_arguments(sys.argv[1:]), "called_at": time.time()}
    settings = own_feed(Settings.from_env())
    from assets.model_data import RANKER_TABLES

    return AssetCall(
        command="make leaderboard",
        asset=_ASSET,
        job="leaderboard",
        tables=RANKER_TABLES,
        config=config,
        settings=settings,
    )


def print_board(settings: Settings) -> None:
    """Write the report and print the table and, last, the JSON line that tools read."""
    from infra import leaderboard_section as section
    from infra.platform import Platform
    from infra.report_content import write_report
    from infra.results import load_result

    report = write_report(settings, Platform().manifest())
    result = load_result(settings, _ASSET)
    assert result is not None
    grids = section.filled(
        section.recipe_grid(result),
        section.failure_grid(result),
        section.cost_grid(result),
        section.claim_grid(result),
    )
    line = {
        "leaderboard": settings.source,
        "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
        "data": result["config"]["data"],
        "figures": result["figures"],
        "goals": result["goals"],
        "report": str(report),
    }
    lines = [text for grid in grids for text in section.text_lines(grid)]
    goals = [_goal(goal, result["figures"][goal["figure"]]) for goal in result["goals"]]
    where = ["goals", *goals, "", f"report: {report}", json.dumps(line)]
    sys.stdout.write("\n".join(["", *lines, *where, ""]))


def _goal(goal: dict[str, Any], value: float | None) -> str:
    found = "not measured, MISSED" if value is None else f"{value:.3f}"
    verdict = "" if value is None else ", met" if goal["met"] else ", MISSED"
    return f"  {goal['figure']} {goal['op']} {goal['limit']}: {found}{verdict}"


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    sys.exit(main())
