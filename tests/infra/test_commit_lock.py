"""The commit lock keeps other processes out, and dies with its holder."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra.commit_lock import commit_lock
from infra.errors import UserError

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
