"""Number the users and describe them: as they changed, and as they are at the end of the log."""

from functools import reduce

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from pipelines.items import is_current
from pipelines.sources.manifest import SourceManifest
from pipelines.tables import USERS
from pipelines.version_tables import USER_VERSIONS
from pipelines.versions import build_versions

_PROFILE = ("text", "features")


def build_user_versions(
    profiles: DataFrame, interactions: DataFrame, *, history: DataFrame | None = None
) -> DataFrame:
    """Build the versions of every user of the profiles, the log or the undated history.

    Args:
        profiles: user_id, text, features, and valid_from where the source has one (versions.py).
        interactions: Rows of `INTERACTIONS`, all days.
        history: Undated history, at least `user_id`; None where the source has none.

    Returns:
        Rows of `USER_VERSIONS`.
    """
    present = [profiles, interactions] if history is None else [profiles, interactions, history]
    ids = reduce(DataFrame.unionByName, [frame.select("user_id") for frame in present])
    named = ids.where(F.col("user_id").isNotNull()).distinct()
    versions = build_versions(profiles, named, key="user_id", attributes=_PROFILE)
    return versions.select(*USER_VERSIONS.column_names)


def build_users(versions: DataFrame, *, manifest: SourceManifest) -> DataFrame:
    """Build one row per user, with their profile as of the end of the log.

    `user_index` counts from 1 in the order of `user_id`. Only the ids pass through one task, to
    be numbered.

    Args:
        versions: Rows of `USER_VERSIONS`.
        manifest: The source's manifest.

    Returns:
        Rows of `USERS`.
    """
    current = versions.where(is_current(manifest))
    index = F.row_number().over(Window.orderBy("user_id"))
    numbered = current.select("user_id").withColumn("user_index", index)
    return numbered.join(current, on="user_id", how="inner").select(*USERS.column_names)
