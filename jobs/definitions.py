"""Compose the graph: every asset, check, job and resource, as `workspace.yaml` loads it."""

import dagster as dg

from assets import (
    checks,
    day_checks,
    evaluation,
    events,
    inference,
    leaderboard,
    reference_checks,
    reports,
    search,
    tables,
    tokens,
    training,
)
from infra.platform import Platform
from jobs.care import table_care, weekly_care
from jobs.daily import daily_tables, daily_update, update
from jobs.everything import everything
from jobs.leaderboard_job import leaderboard_job
from jobs.progress import progress_logger
from jobs.retraining import retraining, retraining_sensor
from jobs.search_job import search_job

_MODULES = [events, tables, tokens, training, evaluation, leaderboard, search, inference, reports]

defs = dg.Definitions(
    assets=dg.load_assets_from_modules(_MODULES),
    asset_checks=dg.load_asset_checks_from_modules(
        [checks, day_checks, reference_checks, *_MODULES]
    ),
    jobs=[everything, daily_tables, update, retraining, leaderboard_job, search_job, table_care],
    schedules=[daily_update, weekly_care],
    sensors=[retraining_sensor],
    resources={"platform": Platform()},
    loggers={"progress": progress_logger, "console": dg.colored_console_logger},
    executor=dg.in_process_executor,
)
