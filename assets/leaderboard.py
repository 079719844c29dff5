"""The leaderboard asset: every ranking recipe on one source, fitted where the ledger lacks it."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np
from pydantic import Field

from assets.outcomes import MEMORY_POOL, OWNERS, numeric_metadata
from infra.errors import UserError
from infra.platform import Platform

if TYPE_CHECKING:
    from assets.model_data import RankerData
    from infra.pinned_tables import PinnedTables
    from ml.ranking.leaderboard.plan import BoardConfig
    from ml.ranking.leaderboard.table import Board

LEDGERS = "tests/benchmarks/leaderboard"
MOST_USERS = 4_000  # more are sampled: all recipes on one source are to fit within three hours


class LeaderboardConfig(dg.Config):
    """What a call may bound."""

    recipes: list[str] = Field(default=[], description="Recipes to fit and show; all if empty.")
    budget_minutes: float | None = Field(
        default=None, description="Minutes after which no new cell starts."
    )
    called_at: float | None = Field(
        default=None, description="Unix time from which the minutes count; the step's by default."
    )
    retry: bool = Field(default=False, description="Fit cells that failed once more.")
    ledgers: str = Field(
        default=LEDGERS, description="Folder of the ledgers, from the root of the repository."
    )

    def seconds_left(self) -> float | None:
        """Return what is left of the budget, None without one."""
        if self.budget_minutes is None:
            return None
        spent = 0.0 if self.called_at is None else time.time() - self.called_at
        return 60 * self.budget_minutes - spent


@dg.asset(
    group_name="evaluation",
    kinds={"ray", "pytorch", "mlflow"},
    owners=OWNERS,
    pool=MEMORY_POOL,
    deps=["sequences", "item_versions", "semantic_ids", "item_embeddings"],
)
def ranking_leaderboard(
    context: dg.AssetExecutionContext, platform: Platform, config: LeaderboardConfig
) -> Iterator[dg.MaterializeResult]:
    """All ranking recipes with equal trials and several seeds, from a ledger that is resumed."""
    from assets.model_data import RANKER_TABLES, pinned, read_ranker_data
    from infra.leaderboard_run import RunLimits, compare, fit_missing
    from infra.results import save_result
    from ml.ranking.leaderboard.comparison import Evidence
    from ml.ranking.leaderboard.exam_folder import ExamFolder
    from ml.ranking.leaderboard.ledger import Ledger
    from ml.ranking.leaderboard.sample import sample_users
    from ml.ranking.leaderboard.table import build_board

    settings, manifest = platform.settings(), platform.manifest()
    if (reason := manifest.cannot_feed.get("ranker")) is not None:
        raise UserError(f"{manifest.source} cannot feed a leaderboard: {reason}")
    tables = pinned(platform, RANKER_TABLES)
    data = read_ranker_data(platform, tables)
    data = replace(data, splits=sample_users(data.splits, most=MOST_USERS))
    board_config = _board_config(config, data, source=manifest.source)
    ledger = _ledger(Ledger, config, source=manifest.source)
    folder = ExamFolder(path=settings.ray_folder / "leaderboard")
    folder.save(data.splits, items=data.items, spec=data.spec)
    limits = RunLimits(
        budget_seconds=config.seconds_left(), retry=config.retry, cpus=settings.threads
    )
    measured = fit_missing(board_config, ledger, folder, limits=limits, say=context.log.info)
    test = data.splits["test"]
    compare(board_config, ledger, Evidence(test=test, spec=data.spec, folder=folder.path))
    targets = int(test.is_target.sum())
    users = len(np.unique(test.user[test.event_row][test.is_target]))
    board = build_board(
        board_config, ledger, counts={"users": users, "targets": targets}, at_once=settings.threads
    )
    result = {**board.as_result(), "surfaces": list(manifest.surfaces)}
    path = save_result(settings, "ranking_leaderboard", result)
    run_id = _log(platform, board, tables, path=path)
    figures = {**board.figures, "cells_measured_now": measured, "mlflow_run": run_id}
    yield dg.MaterializeResult(metadata=numeric_metadata(figures))


def _board_config(config: LeaderboardConfig, data: "RankerData", *, source: str) -> "BoardConfig":
    from infra.leaderboard_run import recipe_states
    from ml.ranking.leaderboard.exam_folder import data_version
    from ml.ranking.leaderboard.plan import BoardConfig

    try:
        recipes = recipe_states(tuple(config.recipes))
    except ValueError as error:
        raise UserError(str(error)) from error
    return BoardConfig(
        source=source,
        data=data_version(data.splits, items=data.items, spec=data.spec),
        primary=data.spec.primary_action,
        recipes=recipes,
    )


def _ledger(kind: Any, config: LeaderboardConfig, *, source: str) -> Any:
    root = Path(__file__).resolve().parent.parent
    try:
        return kind(root / config.ledgers / f"{source}.jsonl")
    except ValueError as error:
        raise UserError(str(error)) from error


def _log(platform: Platform, board: "Board", tables: "PinnedTables", *, path: Path) -> str:
    """Log the table as a run of the experiment `leaderboard`."""
    from infra.registry import TrainingRun

    metrics = {f"{n}.{m}": v for n, m, v in _metrics(board) if v is not None}
    figures = {name: value for name, value in board.figures.items() if value is not None}
    config = board.config
    return platform.registry(experiment="leaderboard").log_training(
        TrainingRun(
            name=config.source,
            config={"data": config.data, "seeds": list(config.seeds), "recipes": config.recipes},
            metrics={**metrics, **figures},
            data_versions=tables.versions,
            tags={"source": config.source},
            files=(path,),
        )
    )


def _metrics(board: "Board") -> Iterator[tuple[str, str, float | None]]:
    for name, found in board.recipes.items():
        for metric, value in found["actions"].get(board.config.primary, {}).items():
            if not isinstance(value, bool):
                yield name, metric, value
        for cost in ("num_parameters", "train_seconds", "score_seconds_per_1000"):
            yield name, cost, found[cost]
