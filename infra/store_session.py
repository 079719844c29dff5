"""Let a Spark session reach the lake's object store.

Credentials go into the running JVM's Hadoop configuration and nowhere else: an option of the
session would stand in the JVM's command line. Each option is the bucket's own, so that sessions
may use several stores. Delta's writes need no committer of S3A's, and its log store stays the
default (infra/lease.py).

A Connect server has its own configuration, and is told the store where it is started; so are `gs`
and `abfss`, whose options a site keeps in Spark's configuration (`SPARK_CONF_DIR`).
"""

from typing import TYPE_CHECKING, Any

from infra.commit_lock import is_remote
from infra.errors import UserError
from infra.lake_location import Folder, StoreFolder

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# S3A's name of each thing that object_store is told.
_S3A = {
    "aws_endpoint_url": "endpoint",
    "aws_region": "endpoint.region",
    "aws_access_key_id": "access.key",
    "aws_secret_access_key": "secret.key",
    "aws_session_token": "session.token",
}
# A server that does not answer is given up after about a minute, not after twenty.
_PATIENCE = {"attempts.maximum": "5", "retry.limit": "4", "connection.establish.timeout": "10s"}


def reach_lake(spark: "SparkSession", lake: Folder) -> None:
    """Tell a session how to reach the lake; nothing is to do for a local one.

    Raises:
        UserError: If the session lacks what its file system needs.
    """
    if not isinstance(lake, StoreFolder) or is_remote(spark):
        return
    context: Any = spark.sparkContext
    hadoop = context._jsc.hadoopConfiguration()
    for name, value in s3a_options(lake).items():
        hadoop.set(f"fs.s3a.bucket.{lake.bucket}.{name}", value)
    _require_file_system(context._jvm, hadoop, lake)


def s3a_options(lake: StoreFolder) -> dict[str, str]:
    """Return S3A's options of a bucket, each without what names the bucket; else empty."""
    if lake.scheme != "s3a":
        return {}
    given = dict(lake.options)
    found = {_S3A[name]: value for name, value in given.items() if name in _S3A} | _PATIENCE
    if endpoint := given.get("aws_endpoint_url"):
        found["path.style.access"] = "true"
        found["connection.ssl.enabled"] = str(not endpoint.startswith("http://")).lower()
    return found


def _require_file_system(jvm: Any, hadoop: Any, lake: StoreFolder) -> None:
    from py4j.protocol import Py4JJavaError

    try:
        jvm.org.apache.hadoop.fs.FileSystem.getFileSystemClass(lake.scheme, hadoop)
    except Py4JJavaError as error:
        raise UserError(
            f"Spark has no file system for {lake.scheme}:// ({error.java_exception.getMessage()})",
            remedy="set RANKLAKE_LAKE_JARS to its jars, and start a new process",
        ) from None
