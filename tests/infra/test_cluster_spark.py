"""The tables come out equal, row for row, from a standalone master and a Spark Connect server."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from infra import delta_arrow
from infra.commit_lock import commit_lock
from infra.errors import UserError
from infra.settings import Settings
from infra.spark_cluster import reach
from tests.assets.day_tables import DAY_TABLES
from tests.assets.interleaving import SNAPSHOTS
from tests.infra.cluster_child import observe
from tests.infra.spark_servers import connect_server, free_port, standalone

_LIMIT_SECONDS = 400.0
_PATIENCE_SECONDS = 2
_KINDS = ("local", "master", "connect")


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, jar_cache: Path, checkout: Path, spark: SparkSession
) -> Iterator[dict[str, dict[str, Any]]]:
    """Run the tables with each kind of Spark, all at once; return what each said, and its lake."""
    base = tmp_path_factory.mktemp("cluster")
    (base / "conf").mkdir()
    (base / "conf" / "spark-defaults.conf").write_text("spark.executor.memory 512m\n")
    common = {"RANKLAKE_JARS": str(jar_cache), "RANKLAKE_PROFILE": "test"}
    settings = Settings.from_env({**common, "RANKLAKE_HOME": str(base / "server")})
    children: dict[str, subprocess.Popen[str]] = {}
    with ExitStack() as stack:
        master = stack.enter_context(standalone(base / "standalone"))
        server = stack.enter_context(connect_server(base, settings))
        places = {
            "master": {"SPARK_MASTER": master, "SPARK_CONF_DIR": str(base / "conf")},
            "connect": {"SPARK_REMOTE": server},
        }
        for kind, place in places.items():
            environ = {**os.environ, **common, **place, "RANKLAKE_HOME": str(base / kind)}
            with (base / f"{kind}.log").open("w") as log:
                children[kind] = subprocess.Popen(
                    [sys.executable, "-m", "tests.infra.cluster_child"],
                    cwd=checkout,
                    env=environ,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )
            stack.callback(_end, children[kind])
        local = Settings.from_env({**common, "RANKLAKE_HOME": str(base / "local")})
        found = {"local": {"lake": local.lake, **observe(spark, local)}}
        for kind, child in children.items():
            said, _ = child.communicate(timeout=_LIMIT_SECONDS)
            assert child.returncode == 0, (base / f"{kind}.log").read_text()[-3000:]
            lake = Settings.from_env({"RANKLAKE_HOME": str(base / kind)}).lake
            found[kind] = {"lake": lake, **json.loads(said.splitlines()[-1])}
        yield found


def _end(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.wait()


@pytest.mark.parametrize("kind", ["master", "connect"])
def test_tables_equal_those_of_a_local_session(runs: dict[str, Any], kind: str) -> None:
    for table in (*DAY_TABLES, *SNAPSHOTS):
        wanted, found = (
            sorted(map(repr, delta_arrow.arrow(runs[each]["lake"], table).to_pylist()))
            for each in ("local", kind)
        )
        assert wanted, table.name
        assert found == wanted, table.name


def test_each_kind_is_what_it_says(runs: dict[str, Any]) -> None:
    classic, remote = "pyspark.sql.session", "pyspark.sql.connect.session"
    assert [runs[kind]["spark"] for kind in _KINDS] == [classic, classic, remote]


@pytest.mark.parametrize("kind", _KINDS)
def test_merge_quality_and_refusal_are_the_same(runs: dict[str, Any], kind: str) -> None:
    said = runs[kind]
    assert said["merged"] == [2, True]
    assert said["corrected"] == 0
    assert said["breach"] == "frame for table items has 7 rows with null item_id"
    assert said["rules"] > 10
    assert said["observed"] == runs["local"]["observed"]
    assert said["feed"] == runs["local"]["feed"]


def test_a_finished_run_leaves_no_note(runs: dict[str, Any]) -> None:
    locks = runs["connect"]["lake"] / "_locks"
    assert [path.name for path in locks.glob("*.remote")] == []
    assert len(list(locks.iterdir())) > 1


def test_write_whose_end_nobody_saw_stops_the_next_writer(tmp_path: Path) -> None:
    note = tmp_path / "table.remote"
    note.write_text("somewhere, since then")
    with (
        pytest.raises(UserError, match=r"server at somewhere, since then .* delete .*\.remote"),
        commit_lock(tmp_path / "table"),
    ):
        pytest.fail("the server may still write")
    note.unlink()
    with commit_lock(tmp_path / "table"):
        assert (tmp_path / "table").exists()


@pytest.mark.parametrize(("scheme", "name"), [("spark", "MASTER"), ("sc", "REMOTE")])
def test_a_spark_that_is_not_there_is_named(scheme: str, name: str) -> None:
    url = f"{scheme}://127.0.0.1:{free_port()}"
    with pytest.raises(UserError, match=rf"no Spark answers at SPARK_{name}={url} .*start it"):
        reach(f"{url}/;token=secret" if scheme == "sc" else url)


def test_a_master_without_a_worker_ends_the_run_with_one_line(
    tmp_path: Path, jar_cache: Path, checkout: Path
) -> None:
    code = (
        "from infra.settings import Settings; from infra.spark import spark_session; "
        f"spark_session(Settings.from_env(), answer_seconds={_PATIENCE_SECONDS})"
    )
    places = {"RANKLAKE_JARS": str(jar_cache), "RANKLAKE_HOME": str(tmp_path)}
    with standalone(tmp_path, workers=0) as master:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, check=False,
            env={**os.environ, **places, "RANKLAKE_PROFILE": "test", "SPARK_MASTER": master},
            timeout=_LIMIT_SECONDS,
        )  # fmt: skip
    said = done.stderr.strip().splitlines()[-1]
    assert f"no worker of {master} did a first task within {_PATIENCE_SECONDS} s; see that" in said


def test_wrong_addresses_are_refused() -> None:
    with pytest.raises(UserError, match=r"SPARK_MASTER must be spark://host:port, not 'yarn'"):
        Settings.from_env({"SPARK_MASTER": "yarn"})
    with pytest.raises(UserError, match="name two Sparks"):
        Settings.from_env({"SPARK_MASTER": "spark://a:1", "SPARK_REMOTE": "sc://b:2"})
