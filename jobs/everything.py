"""The job that materialises the whole graph in one process: one Spark session, one Ray."""

import dagster as dg

everything = dg.define_asset_job(
    "everything",
    selection=dg.AssetSelection.all()
    - dg.AssetSelection.assets("ranking_leaderboard", "recipe_search"),
    executor_def=dg.in_process_executor,
    description="Raw logs to registered models, an optimised MoE and a report, in one run.",
)
