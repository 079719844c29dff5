"""The job of the search: the tables that the models read, and the search itself."""

import dagster as dg

search_job = dg.define_asset_job(
    "search",
    selection=dg.AssetSelection.assets("recipe_search").upstream().required_multi_asset_neighbors(),
    executor_def=dg.in_process_executor,
    description="Raw log to the tables that models read, and trials of one model's recipe.",
)
