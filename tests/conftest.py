"""Fixtures for the whole run: one Spark session per process, the real data, a calm machine."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

# The suite must not depend on the machine's zone; set TZ to run it in another one.
os.environ.setdefault("TZ", "UTC")
time.tzset()
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest  # noqa: E402

from infra.cluster import set_own_flags  # noqa: E402
from infra.jars import delta_jars, s3a_jars  # noqa: E402
from infra.settings import Settings  # noqa: E402
from infra.spark import spark_session  # noqa: E402
from tests.infra.s3_server import S3Server, s3_server, server_program  # noqa: E402

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Ray reads them when it is imported, which any test may do before another starts an instance.
set_own_flags()

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def checkout() -> Path:
    """Return the root of the repository."""
    return CHECKOUT


@pytest.fixture(scope="session")
def jar_cache() -> Path:
    """Return a folder with Delta's jars, shared by all test runs of this checkout."""
    cache = Settings.from_env({"RANKLAKE_HOME": str(CHECKOUT / ".ranklake")})
    return delta_jars(cache)[0].parent


@pytest.fixture(scope="session")
def mlflow_database() -> Path:
    """Return a database of MLflow without a run, kept between test runs: making one takes 14 s."""
    path = CHECKOUT / ".ranklake" / "tests" / f"mlflow-{version('mlflow')}.db"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        program = "import mlflow, sys; mlflow.MlflowClient(sys.argv[1]).search_experiments()"
        command = [sys.executable, "-c", program, f"sqlite:///{partial}"]
        subprocess.run(command, check=True, cwd=path.parent)
        partial.replace(path)
    return path


@pytest.fixture(scope="session")
def s3a_cache() -> Path:
    """Return a folder with the jars of `s3a`, shared by all test runs of this checkout."""
    cache = Settings.from_env({"RANKLAKE_HOME": str(CHECKOUT / ".ranklake")})
    return s3a_jars(cache)[0].parent


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Run the S3-compatible server of this test process."""
    with s3_server(server_program(), tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def spark(
    tmp_path_factory: pytest.TempPathFactory, jar_cache: Path, s3a_cache: Path
) -> Iterator["SparkSession"]:
    """Start the only Spark session of this test process; it can reach an object store."""
    home = tmp_path_factory.mktemp("spark-home")
    environ = {
        "RANKLAKE_HOME": str(home),
        "RANKLAKE_JARS": str(jar_cache),
        "RANKLAKE_LAKE_JARS": str(s3a_cache),
        "RANKLAKE_PROFILE": "test",
    }
    if "JAVA_HOME" in os.environ:
        environ["JAVA_HOME"] = os.environ["JAVA_HOME"]
    session = spark_session(Settings.from_env(environ))
    yield session
    session.stop()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of the real data sets; skip without it, fail without it in CI."""
    default = CHECKOUT.parent / "shared" / "data"
    folder = Path(os.environ.get("RANKLAKE_DATA") or default)
    if folder.is_dir():
        return folder
    message = f"no real data at {folder}: set RANKLAKE_DATA to the folder that holds it"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
