"""Users: dense, deterministic indices over profiles, log and undated history."""

from pyspark.sql import SparkSession
from pyspark.testing import assertDataFrameEqual

from pipelines.tables import USERS
from pipelines.users import build_user_versions, build_users
from tests.pipelines.log_rows import LOG, interaction_log, rows_of, shown

_PROFILES = "user_id string, text string, features map<string, string>"


def test_profiles_log_and_history_make_one_numbered_table(spark: SparkSession) -> None:
    profiles = spark.createDataFrame(
        [("b", "older", None), ("b", "reader", {"age": "30"}), (None, "nobody", None)], _PROFILES
    )
    history = spark.createDataFrame(
        [("a", ["x"]), ("b", ["y"])], "user_id string, item_ids array<string>"
    )
    log = interaction_log(
        spark, *(shown(str(n), "x", 5, user_id=user) for n, user in enumerate("ccb"))
    )
    expected = [
        {"user_id": "a", "user_index": 1},
        {"user_id": "b", "user_index": 2, "text": "reader", "features": {"age": "30"}},
        {"user_id": "c", "user_index": 3},
    ]
    found = build_users(build_user_versions(profiles, log, history=history), manifest=LOG)
    assertDataFrameEqual(found, rows_of(spark, USERS, expected))


def test_without_history_and_profiles_the_log_is_enough(spark: SparkSession) -> None:
    profiles = spark.createDataFrame([], _PROFILES)
    log = interaction_log(spark, shown("1", "x", 5, user_id="10"), shown("2", "x", 5, user_id="9"))
    expected = [{"user_id": "10", "user_index": 1}, {"user_id": "9", "user_index": 2}]
    found = build_users(build_user_versions(profiles, log), manifest=LOG)
    assertDataFrameEqual(found, rows_of(spark, USERS, expected))


def test_nobody_at_all_gives_no_users(spark: SparkSession) -> None:
    versions = build_user_versions(spark.createDataFrame([], _PROFILES), interaction_log(spark))
    found = build_users(versions, manifest=LOG)
    assertDataFrameEqual(found, spark.createDataFrame([], USERS.schema))
