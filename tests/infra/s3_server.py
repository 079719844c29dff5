"""A real S3-compatible server on loopback: versitygw, built once from its pinned source.

It keeps objects as files of a folder. The build takes two minutes and Go, once per user: the
program is kept in the user's cache (`~/.cache/ranklake`).
"""

import hashlib
import hmac
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest

from infra.commit_lock import commit_lock
from tests.infra.spark_servers import free_port, started, wait_for_port

VERSION = "v1.8.0"
_MODULE = f"github.com/versity/versitygw/cmd/versitygw@{VERSION}"
_BUILD_SECONDS = 900.0
_BUCKET = "lake"
_KEY, _SECRET = "ranklake-test", "a-secret-of-the-tests"


@dataclass(frozen=True, kw_only=True, slots=True)
class S3Server:
    """A running server.

    Attributes:
        environ: The variables that reach it, and a lake in its first bucket.
        secret: What must be printed nowhere.
        folder: Where it keeps its buckets.
        log: What it said.
    """

    environ: dict[str, str]
    secret: str
    folder: Path
    log: Path

    @property
    def port(self) -> int:
        """Return its port."""
        return urlsplit(self.environ["AWS_ENDPOINT_URL"]).port or 0


def server_program() -> Path:
    """Return the server's program, building it if the cache lacks it.

    Skips without Go; fails without it in CI.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ranklake"
    program = cache / f"versitygw-{VERSION}"
    if not program.is_file():
        go = _go()
        with commit_lock(cache / "build", timeout_seconds=_BUILD_SECONDS):
            if not program.is_file():
                _build(program, go=go)
    return program


def _go() -> str:
    if (go := shutil.which("go")) is not None:
        return go
    message = f"no Go to build {_MODULE} with: install Go"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def _build(program: Path, *, go: str) -> None:
    with TemporaryDirectory(dir=program.parent, prefix=".build-") as folder:
        done = subprocess.run(
            [go, "install", _MODULE],
            env={**os.environ, "GOBIN": folder, "CGO_ENABLED": "0"},
            check=False,
            capture_output=True,
            text=True,
            timeout=_BUILD_SECONDS,
        )
        if done.returncode != 0:
            pytest.fail(f"{_MODULE} was not built: {done.stderr[-2000:]}")
        (Path(folder) / "versitygw").replace(program)


@contextmanager
def s3_server(program: Path, folder: Path, *, versions: Path | None = None) -> Iterator[S3Server]:
    """Run a server with one bucket.

    Args:
        program: Its program.
        folder: An empty folder, for its buckets and its log.
        versions: Where it can keep versions of objects, or None if it cannot.
    """
    (folder / "buckets" / _BUCKET).mkdir(parents=True)
    port, log = free_port(), folder / "server.log"
    command = [str(program), "--port", f"127.0.0.1:{port}", "--quiet"]
    command += ["posix", str(folder / "buckets")]
    if versions is not None:
        versions.mkdir()
        command[-1:-1] = ["--versioning-dir", str(versions)]
    environ = {**os.environ, "ROOT_ACCESS_KEY_ID": _KEY, "ROOT_SECRET_ACCESS_KEY": _SECRET}
    with started([command], environ=environ, logs=[log]):
        wait_for_port(port)
        yield S3Server(
            environ={
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
                "AWS_REGION": "us-east-1",
                "AWS_ACCESS_KEY_ID": _KEY,
                "AWS_SECRET_ACCESS_KEY": _SECRET,
                "RANKLAKE_LAKE": f"s3a://{_BUCKET}/lakes",
            },
            secret=_SECRET,
            folder=folder / "buckets",
            log=log,
        )


def switch_versioning_on(server: S3Server) -> None:
    """Let the server's bucket keep versions, by a request that is signed as S3 asks for it."""
    body = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    now, day = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}", f"{datetime.now(UTC):%Y%m%d}"
    host, digest = f"127.0.0.1:{server.port}", hashlib.sha256(body).hexdigest()
    headers = {"host": host, "x-amz-content-sha256": digest, "x-amz-date": now}
    listed = "".join(f"{name}:{value}\n" for name, value in headers.items())
    names, scope = ";".join(headers), f"{day}/us-east-1/s3/aws4_request"
    request = f"PUT\n/{_BUCKET}\nversioning=\n{listed}\n{names}\n{digest}"
    text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{_SECRET}".encode()
    for part in (*scope.split("/"), text):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={_KEY}/{scope}, SignedHeaders={names}, Signature={key.hex()}"
    )
    url = f"http://{host}/{_BUCKET}?versioning="
    with urlopen(Request(url, data=body, headers=headers, method="PUT")) as answer:
        assert answer.status == 200
