"""Keep a fork server beside a Ray instance, so that its workers start with modules imported."""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

_WAIT_SECONDS = 60.0
_POLL_SECONDS = 0.05
_ROOT = Path(__file__).resolve().parent.parent


class WarmStart:
    """Start, await and end the fork server of one Ray instance.

    It belongs to one instance and job, because Ray reads both from the environment at import.
    Where it fails, workers start from scratch: slower, and otherwise the same.
    """

    def __init__(self, *, folder: Path, modules: tuple[str, ...]) -> None:
        """Choose the socket.

        Args:
            folder: Folder with a short path, for the socket and the server's log.
            modules: What the server imports; empty for no server.
        """
        self._socket = folder / "warm.sock"
        self._log = folder / "warm.log"
        self._modules = modules
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def runtime_env(self) -> dict[str, str] | None:
        """Return what `ray.init` must be told so that workers come from the server."""
        if not self._modules:
            return None
        client = Path(__file__).with_name("ray_worker.py")
        command = [sys.executable, "-I", "-S", str(client), str(self._socket)]
        return {"py_executable": shlex.join(command)}

    def start(self, *, job_id: str) -> None:
        """Start the server; it imports while this process goes on.

        Args:
            job_id: Ray's job of this process.
        """
        if not self._modules:
            return
        environ = {
            **os.environ,
            "RAY_JOB_ID": job_id,
            "RAY_RAYLET_PID": str(_raylet_pid()),
            # No threads before a fork.
            "OPENBLAS_NUM_THREADS": "1",
            "JE_ARROW_MALLOC_CONF": "background_thread:false",
        }
        with self._log.open("wb") as log:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "infra.warm_server", str(self._socket), *self._modules],
                cwd=_ROOT,
                env=environ,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self) -> bool:
        """Wait until the server can fork; return whether it can."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while self._server is not None and self._server.poll() is None:
            if self._socket.exists():
                return True
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_SECONDS)
        return False

    def stop(self) -> None:
        """End the server and every worker that it forked."""
        if self._server is None or self._server.stdin is None:
            return
        self._server.stdin.close()
        try:
            self._server.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()


def _raylet_pid() -> int:
    import psutil

    children = psutil.Process().children()
    return next(child.pid for child in children if child.name() == "raylet")
