"""The commit lock keeps other processes out, and dies with its holder."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from infra.commit_lock import commit_lock, jvm_lock
from infra.errors import UserError
from infra.settings import Settings

_HOLDER = """
import sys, time
from pathlib import Path
from infra.commit_lock import commit_lock
with commit_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_another_process_waits_until_the_holder_dies(tmp_path: Path, checkout: Path) -> None:
    path = tmp_path / "locks" / "table"
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(path)], cwd=checkout, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(UserError, match=rf"another run has been writing under {path}"),
            commit_lock(path, timeout_seconds=0.2),
        ):
            pytest.fail("two holders")
    finally:
        holder.kill()
        holder.wait()
    with commit_lock(path, timeout_seconds=1):
        assert path.exists()


def test_is_free_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "table"
    with pytest.raises(RuntimeError), commit_lock(path):
        raise RuntimeError
    with commit_lock(path, timeout_seconds=0.1) as started_ns:
        assert abs(started_ns - time.time_ns()) < 60 * 10**9


def test_what_a_killed_writer_left_is_found_by_when_it_began(tmp_path: Path) -> None:
    path = tmp_path / "table"
    with pytest.raises(RuntimeError), commit_lock(path) as began_ns:
        raise RuntimeError
    with commit_lock(path) as found_ns:
        assert found_ns == began_ns
    with commit_lock(path) as later_ns:
        assert later_ns > began_ns


_JVM_HOLDER = """
import fcntl, sys, time
with open(sys.argv[1], "a") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print("held", flush=True)
    time.sleep(60)
"""


def test_jvm_of_a_dead_driver_is_waited_for(
    tmp_path: Path, spark: SparkSession, checkout: Path
) -> None:
    path = tmp_path / "table"
    # A process with the kind of lock that a JVM takes stands for the JVM that outlived its driver.
    command = [sys.executable, "-c", _JVM_HOLDER, str(tmp_path / "table.jvm")]
    with subprocess.Popen(command, cwd=checkout, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="another run"), commit_lock(path, timeout_seconds=0.2):
            pytest.fail("the JVM still writes")
        holder.kill()
    with commit_lock(path, timeout_seconds=1), jvm_lock(spark, path):
        program = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'a'), fcntl.LOCK_EX | 4)"
        tried = [sys.executable, "-c", program, str(tmp_path / "table.jvm")]
        assert subprocess.run(tried, capture_output=True, check=False).returncode == 1
    with commit_lock(path, timeout_seconds=1):
        assert path.exists()


def test_data_home_on_an_object_store_is_refused() -> None:
    with pytest.raises(UserError, match=r"RANKLAKE_HOME must be a folder: .*set RANKLAKE_LAKE"):
        Settings.from_env({"RANKLAKE_HOME": "s3a://bucket"})
