"""Number the users: profiles, and whoever acted without having one."""

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from pipelines.tables import USERS

_PROFILE = ("text", "features")


def build_users(
    profiles: DataFrame, interactions: DataFrame, *, history: DataFrame | None = None
) -> DataFrame:
    """Build one row per user of the profiles, the log or the undated history.

    `user_index` counts from 1 in the order of `user_id`. Of several profiles for one user, the
    one whose JSON is greatest is taken. Only the ids pass through one task, to be numbered.

    Args:
        profiles: user_id, text, features.
        interactions: Rows of `INTERACTIONS`, all days.
        history: Undated history, at least `user_id`; None where the source has none.

    Returns:
        Rows of `USERS`.
    """
    preferred = Window.partitionBy("user_id").orderBy(
        F.to_json(F.struct(*_PROFILE)).desc_nulls_last()
    )
    described = (
        profiles.withColumn("choice", F.row_number().over(preferred))
        .where(F.col("choice") == 1)
        .select("user_id", *_PROFILE)
    )
    present = [profiles, interactions] if history is None else [profiles, interactions, history]
    ids = present[0].select("user_id")
    for frame in present[1:]:
        ids = ids.unionByName(frame.select("user_id"))
    index = F.row_number().over(Window.orderBy("user_id"))
    numbered = ids.where(F.col("user_id").isNotNull()).distinct().withColumn("user_index", index)
    return numbered.join(described, on="user_id", how="left").select(*USERS.column_names)
