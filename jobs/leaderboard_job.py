"""The job of the leaderboard: the tables that rankers read, and the leaderboard itself."""

import dagster as dg

leaderboard_job = dg.define_asset_job(
    "leaderboard",
    selection=dg.AssetSelection.assets("ranking_leaderboard")
    .upstream()
    .required_multi_asset_neighbors(),
    executor_def=dg.in_process_executor,
    description="Raw log to the tables that rankers read, and every ranking recipe on them.",
)
