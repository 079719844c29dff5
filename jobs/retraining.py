"""Train anew the models whose training data held a user who was erased since."""

from collections.abc import Iterator

import dagster as dg

from infra.platform import Platform
from infra.trained_versions import retraining_requests

retraining = dg.define_asset_job(
    "retraining",
    selection=dg.AssetSelection.assets("user_versions").downstream()
    - dg.AssetSelection.assets("ranking_leaderboard", "recipe_search"),
    executor_def=dg.in_process_executor,
    description="Users, sequences and prompts without the erased, and all that is made from them.",
)


@dg.sensor(
    name="retraining_requests",
    job=retraining,
    minimum_interval_seconds=600,
    description="Starts one retraining for the models that an erasure asks it for; off until it "
    "is switched on in the web UI.",
)
def retraining_sensor(platform: Platform) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Ask for one run while a model in use stands by an erased user's data."""
    requests = open_requests(platform)
    if not requests:
        yield dg.SkipReason("no model in use was trained on data of an erased user")
        return
    names = " ".join(f"{name}:{version}" for name, version in requests)
    yield dg.RunRequest(run_key=names, tags={"ranklake/retraining": names})


def open_requests(platform: Platform) -> list[tuple[str, int]]:
    """Return the model versions in use that must be trained again, as (name, version)."""
    if not platform.settings().mlflow_artifacts.exists():
        return []
    return retraining_requests(platform.registry().client())
