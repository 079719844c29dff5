"""A lease keeps drivers of an object store apart, and outlives a holder that may still write."""

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from infra.errors import DriverLostError, UserError
from infra.lake_files import files_under, remove_files
from infra.lake_location import StoreFolder, lake_folder
from infra.lease import held_lease, lease, release_lease
from infra.lease_holder import ProcessId, process_id, this_driver
from infra.object_store import client, read_object
from jobs import release_lease as command
from tests.infra.s3_server import S3Server
from tests.infra.spark_servers import free_port

_HOLDER = """
import os, sys, time
from infra.lake_location import lake_folder
from infra.lease import lease
with lease(lake_folder(sys.argv[1], os.environ), "t.table"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def lake(s3: S3Server, request: pytest.FixtureRequest) -> StoreFolder:
    """Return an empty lake of a test's own."""
    found = lake_folder(f"{s3.environ['RANKLAKE_LAKE']}/{request.node.name}", s3.environ)
    assert isinstance(found, StoreFolder)
    return found


def test_threads_take_turns(lake: StoreFolder) -> None:
    import obstore

    store, counts = client(lake), []
    obstore.put(store, "count", b"0")

    def add() -> None:
        for _ in range(6):
            with lease(lake, "t.table"):
                counted = int(bytes(obstore.get(store, "count").bytes()))
                obstore.put(store, "count", str(counted + 1).encode())
                counts.append(counted)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == list(range(24))


def test_waits_for_a_driver_that_runs_and_takes_over_from_one_that_ended(
    lake: StoreFolder, s3: S3Server, checkout: Path
) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(lake)],
        cwd=checkout,
        env={"PATH": "/usr/bin:/bin", **s3.environ},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        refused = (
            rf"t\.table of the lake at {lake} has been held for 0 s by -c on \S+ "
            rf"\(process {holder.pid}\), since .* UTC; wait for it or end it"
        )
        with pytest.raises(UserError, match=refused), lease(lake, "t.table", timeout_seconds=0.2):
            pytest.fail("two holders")
        with pytest.raises(UserError, match="which is running; wait for it or end it"):
            release_lease(lake, "t.table")
        taken = read_object(lake, "_locks/t.table")
        assert taken is not None
    finally:
        holder.kill()
        holder.wait()
    with pytest.raises(RuntimeError), lease(lake, "t.table", timeout_seconds=1) as since_ns:
        assert since_ns == taken.modified_ns  # what the killed driver left is younger
        raise RuntimeError
    assert held_lease(lake, "t.table") is None


def test_holder_elsewhere_is_never_taken_for_dead(
    lake: StoreFolder,
    s3: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # The number of a process that is not there says nothing about another machine.
    gone = ProcessId(pid=2**22 + 1, began=1)
    elsewhere = replace(this_driver(), host="other", machine="another boot", python=gone)
    with pytest.raises(KeyboardInterrupt), lease(lake, "tables.items", driver=elsewhere):
        raise KeyboardInterrupt
    with lease(lake, "tables.items", timeout_seconds=0.1):
        pass  # it let go itself, and had no JVM
    with (
        pytest.raises(KeyboardInterrupt),
        lease(lake, "tables.items", driver=replace(elsewhere, jvm=gone)) as began_ns,
    ):
        raise KeyboardInterrupt
    advice = r"on other \(a process that has let go, JVM \d+\).* say make release-lease TABLE=items"
    with pytest.raises(UserError, match=advice), lease(lake, "tables.items", timeout_seconds=0.1):
        pytest.fail("its JVM may still commit")
    for name, value in s3.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RANKLAKE_SOURCE", lake.name)  # so that this is the lake of the settings
    for table, status, told in (
        ("nothing", 2, "ranklake: there is no table 'nothing'; say one of forget, "),
        ("items", 0, "items: taken from "),
        ("items", 0, "items: the lease is free"),
    ):
        monkeypatch.setattr(sys, "argv", ["release_lease", table])
        assert command.main() == status
        said = capsys.readouterr()
        assert (said.out or said.err).startswith(told)
    with lease(lake, "tables.items", timeout_seconds=0.1) as since_ns:
        assert since_ns == began_ns  # the next writer removes what that one left


def test_jvm_that_outlives_its_driver_is_waited_for(lake: StoreFolder) -> None:
    with subprocess.Popen(["sleep", "60"]) as jvm:  # stands for it
        driver = replace(this_driver(), jvm=process_id(jvm.pid))
        with pytest.raises(KeyboardInterrupt), lease(lake, "t.table", driver=driver) as began_ns:
            raise KeyboardInterrupt
        waits = rf"a process that has let go, JVM {jvm.pid}\), since .*; wait for it or end it"
        with pytest.raises(UserError, match=waits), lease(lake, "t.table", timeout_seconds=0.1):
            pytest.fail("the JVM still writes")
        jvm.kill()
    with lease(lake, "t.table", timeout_seconds=0.1) as since_ns:
        assert since_ns == began_ns


def test_jvm_that_went_away_and_server_that_may_not_have(lake: StoreFolder) -> None:
    dead = replace(this_driver(), jvm=ProcessId(pid=2**22 + 1, began=1))
    with pytest.raises(DriverLostError), lease(lake, "t.table", driver=dead):
        raise DriverLostError("gone")
    with lease(lake, "t.table", timeout_seconds=0.1):
        pass
    connect = replace(this_driver(), server="elsewhere")
    with pytest.raises(DriverLostError), lease(lake, "t.table", driver=connect):
        raise DriverLostError("gone")
    with (
        pytest.raises(UserError, match=r"Spark Connect server elsewhere\).* make release-lease"),
        lease(lake, "t.table", timeout_seconds=0.1),
    ):
        pytest.fail("the server may still commit")


def test_lease_taken_away_is_noticed(lake: StoreFolder) -> None:
    with (
        pytest.raises(UserError, match=r"was taken away during the write.* may have been lost"),
        lease(lake, "t.table"),
    ):
        remove_files(lake, ["_locks/t.table"])
    assert [file.path for file in files_under(lake)] == ["_locks/condition"]


def test_store_that_is_not_there_is_named_without_its_secret() -> None:
    environ = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "topsecret",
    }
    lake = lake_folder("s3a://bucket/lake", environ)
    assert isinstance(lake, StoreFolder)
    with (
        pytest.raises(UserError, match=r"s3a://bucket/lake cannot be used: .*check") as caught,
        lease(lake, "t.table"),
    ):
        pytest.fail("there is no store")
    assert "topsecret" not in str(caught.value) + repr(lake)
    assert "\n" not in str(caught.value)


class _Careless(http.server.BaseHTTPRequestHandler):
    """A store that takes every write, whatever its condition."""

    objects: dict[str, bytes] = {}  # noqa: RUF012

    def do_PUT(self) -> None:
        self.objects[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer(self.objects[self.path])

    def _answer(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("ETag", '"1"')
        self.send_header("Last-Modified", "Mon, 02 Mar 2026 10:00:00 GMT")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def careless_store() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Careless) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_store_that_ignores_conditions_is_refused() -> None:
    with careless_store() as port:
        lake = lake_folder("s3a://bucket/lake", {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"})
        assert isinstance(lake, StoreFolder)
        lake = replace(lake, options=(*lake.options, ("aws_skip_signature", "true")))
        with (
            pytest.raises(UserError, match=r"overwrites objects whatever condition it is given"),
            lease(lake, "t.table"),
        ):
            pytest.fail("nothing keeps drivers apart")
