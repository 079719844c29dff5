"""Reach a Spark that runs elsewhere: a standalone master, or a Spark Connect server.

A standalone master (`SPARK_MASTER`) lends executors; the driver and its JVM stay in this process,
which the executors call back. A Connect server (`SPARK_REMOTE`) is the driver; this process only
asks. Either way the other machines see the lake and the source's files under the same paths, and
their Python has the packages of the lock; the `pipelines` package is sent to them.
"""

import hashlib
import re
import socket
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import uuid4

import pyarrow as pa

import pipelines
from infra.errors import UserError
from infra.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ANSWER_SECONDS = 60.0
_REACH_SECONDS = 10.0
_INTERRUPT_SECONDS = 1.0
_CONNECT_PORT = 15002
_RETRIES = 7  # of a call to a Connect server: about a minute, not the library's ten
_DELTA = "DeltaSparkSessionExtension"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest time that an archive can hold


def reach(url: str) -> str:
    """Return the address by which this machine reaches a server.

    Args:
        url: `spark://host:port[,host:port...]` or `sc://host[:port][/;options]`.

    Raises:
        UserError: If none of its hosts takes a connection within 10 s.
    """
    reasons = []
    for host, port in _endpoints(url):
        try:
            with socket.create_connection((host, port), timeout=_REACH_SECONDS) as connection:
                return str(connection.getsockname()[0])
        except OSError as error:
            reasons.append(f"{host}:{port}: {error.strerror or error}")
    name = "SPARK_REMOTE" if url.startswith("sc:") else "SPARK_MASTER"
    raise UserError(
        f"no Spark answers at {name}={_without_options(url)} ({', '.join(reasons)})",
        remedy=f"start it there, correct {name}, or unset it to run Spark in this process",
    )


def cluster_options(settings: Settings) -> dict[str, str]:
    """Return the options of a driver whose executors are those of a standalone master.

    Raises:
        UserError: If the master does not answer.
    """
    address = reach(settings.spark_master or "")
    java = ["-Duser.timezone=UTC"]
    if settings.profile == "test":
        java.append("-XX:TieredStopAtLevel=1")
    return {
        "spark.driver.host": settings.driver_host or address,
        "spark.driver.bindAddress": address,
        "spark.executor.extraJavaOptions": " ".join(java),
    }


def connect_session(settings: Settings, options: dict[str, str]) -> "SparkSession":
    """Return a session of the Connect server that the settings name.

    Args:
        settings: Names the server.
        options: Options of the session; the server sets its own.

    Raises:
        UserError: If the server does not answer, or has no Delta.
    """
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession
    from pyspark.sql.connect.client.retries import DefaultPolicy

    url = settings.spark_remote or ""
    reach(url)
    try:
        session = SparkSession.builder.remote(url).getOrCreate()
        session.client.set_retry_policies([DefaultPolicy(max_retries=_RETRIES)])
        extensions = session.conf.get("spark.sql.extensions", "") or ""
        for name, value in options.items():
            session.conf.set(name, value)
    except PySparkException as error:
        raise _no_answer(url, error) from error
    if _DELTA not in extensions:
        session.stop()
        raise UserError(
            f"the Spark Connect server at {_without_options(url)} has no Delta",
            remedy="start it with Delta's jars and spark.sql.extensions, as the README says",
        )
    return session


def send_pipelines(
    spark: "SparkSession", settings: Settings, *, answer_seconds: float = ANSWER_SECONDS
) -> None:
    """Send the `pipelines` package to the workers, and see that one of them can use it.

    Args:
        spark: A session that has done nothing yet: all that it does is ended if no worker answers.
        settings: Name the cluster.
        answer_seconds: How long to wait for a worker.

    Raises:
        UserError: If no worker answers in that time, or its Python lacks what is needed.
    """
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    url, is_late = settings.spark_remote or settings.spark_master or "", Event()
    try:
        with _time_limit(spark, answer_seconds, is_late):
            spark.addArtifacts(str(_archive(settings.spark_folder)), pyfile=True)
            _ask_a_worker(spark)
    except (PySparkException, Py4JError) as error:
        if is_late.is_set():
            raise UserError(
                f"no worker of {_without_options(url)} did a first task within "
                f"{answer_seconds:.0f} s",
                remedy="see that it has workers with free cores and memory, and that they can "
                "reach this machine (RANKLAKE_DRIVER_HOST)",
            ) from error
        raise _no_answer(url, error) from error


@contextmanager
def _time_limit(spark: "SparkSession", seconds: float, is_late: Event) -> Iterator[None]:
    """End all that a session does once the time is over, and set the event then.

    Not by a tag, which a driver in this process knows only in the thread that has set it; and
    again and again, for a query that is still being planned cannot be ended yet.
    """
    ended = Event()

    def watch() -> None:
        if ended.wait(seconds):
            return
        is_late.set()
        while not ended.is_set():
            spark.interruptAll()
            ended.wait(_INTERRUPT_SECONDS)

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _ask_a_worker(spark: "SparkSession") -> None:
    # A function within a function goes to the workers whole; they do not have this module.
    def read_contracts(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pipelines import tables

        for batch in batches:
            yield pa.RecordBatch.from_pydict({"tables": [len(tables.ALL_TABLES)] * batch.num_rows})

    spark.range(1).mapInArrow(read_contracts, "tables long").collect()


def _archive(folder: Path) -> Path:
    """Return the `pipelines` package as an archive, whose name says what it holds."""
    root = Path(next(iter(pipelines.__path__)))
    sources = {path.relative_to(root.parent): path.read_bytes() for path in root.rglob("*.py")}
    digest = hashlib.sha256()
    for name in sorted(sources):
        digest.update(f"{name} {len(sources[name])} ".encode() + sources[name])
    path = folder / f"pipelines-{digest.hexdigest()[:16]}.zip"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{uuid4().hex}")
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in sorted(sources):
                archive.writestr(zipfile.ZipInfo(str(name), _EPOCH), sources[name])
        partial.replace(path)
    return path


def _endpoints(url: str) -> list[tuple[str, int]]:
    scheme, _, rest = _without_options(url).partition("://")
    default = _CONNECT_PORT if scheme == "sc" else 7077
    parts = [urlsplit(f"//{host}") for host in rest.rstrip("/").split(",")]
    return [(part.hostname or "", part.port or default) for part in parts]


def _without_options(url: str) -> str:
    """Return an address without what follows it; a Connect server's options may hold a token."""
    return url.partition("/;")[0]


def _no_answer(url: str, error: Exception) -> UserError:
    text = str(error).strip() or type(error).__name__
    reasons = re.findall(r"^[\w.]*(?:Error|Exception): .+$", text, flags=re.MULTILINE)
    return UserError(
        f"Spark at {_without_options(url)} did not do a first task: "
        f"{reasons[-1] if reasons else text.splitlines()[0]}",
        remedy="its workers need the Python and the packages of this environment "
        "(PYSPARK_PYTHON names their program)",
    )
