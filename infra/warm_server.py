"""Fork server: a process that has imported the heavy modules and forks one Ray worker per request.

A Ray worker starts as a new Python process, and each imports Ray Train and torch again: seven
seconds of processor time and hundreds of megabytes, five times per training. Here they are
imported once; `infra/ray_worker.py`, which Ray runs in place of Python, asks this server for a
fork. The fork takes over the caller's arguments, environment and standard streams, and shares the
imported modules' memory. The server ends when its standard input closes, that is with the process
that started it; a fork ends when its caller ends, and the caller when its fork does.

Usage: `python -m infra.warm_server <socket> <module> [<module> ...]`
"""

import array
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
from dataclasses import dataclass, field
from typing import NoReturn

_MAX_REQUEST_BYTES = 1 << 20
_NUM_STREAMS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class _Request:
    """What the caller was started with."""

    argv: list[str]
    environ: dict[str, str]
    folder: str
    streams: list[int]


@dataclass(kw_only=True, slots=True)
class _Server:
    """The event loop's state: who asked, and which fork belongs to whom."""

    listener: socket.socket
    selector: selectors.BaseSelector
    callers: dict[int, socket.socket] = field(default_factory=dict)

    def answer(self, caller: socket.socket) -> None:
        """Fork one worker for a new caller."""
        request = _read_request(caller)
        if request is None:
            caller.close()
            return
        pid = os.fork()
        if pid == 0:
            self._become(caller, request)
        for stream in request.streams:
            os.close(stream)
        self.callers[pid] = caller
        self.selector.register(caller, selectors.EVENT_READ, data=("gone", pid))

    def reap(self) -> None:
        """Tell the callers of finished forks how those ended."""
        while self.callers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if caller := self.callers.pop(pid, None):
                self.selector.unregister(caller)
                code = os.waitstatus_to_exitcode(status)
                _send_quietly(caller, str(code if code >= 0 else 128 - code).encode())
                caller.close()

    def drop(self, pid: int) -> None:
        """End a fork whose caller is gone."""
        os.kill(pid, signal.SIGKILL)
        self.selector.unregister(self.callers[pid])
        self.callers.pop(pid).close()
        os.waitpid(pid, 0)

    def _become(self, caller: socket.socket, request: _Request) -> NoReturn:
        os.setpgid(0, 0)  # Ray ends a worker by its process group; it must not be the server's
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        self.selector.close()
        for connection in (self.listener, caller, *self.callers.values()):
            connection.close()
        for target, stream in enumerate(request.streams):
            os.dup2(stream, target)
            os.close(stream)
        os.environ.clear()
        os.environ.update(request.environ)
        os.chdir(request.folder)
        sys.argv = request.argv
        _refresh()
        try:
            runpy.run_path(request.argv[0], run_name="__main__")
        except SystemExit as stop:
            os._exit(stop.code if isinstance(stop.code, int) else 0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)


def serve(path: str, modules: list[str]) -> None:
    """Import the modules, then fork a worker for each caller until standard input closes.

    Args:
        path: Unix socket to listen on.
        modules: Modules to import before the first fork; one that is missing is left out, as
            the worker that needs it will say so itself.
    """
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    gc.collect()
    gc.freeze()
    wake_read, wake_write = os.pipe()
    for descriptor in (wake_read, wake_write):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    with socket.socket(socket.AF_UNIX) as listener, selectors.DefaultSelector() as selector:
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen(64)
        server = _Server(listener=listener, selector=selector)
        selector.register(listener, selectors.EVENT_READ, data=("caller", 0))
        selector.register(wake_read, selectors.EVENT_READ, data=("ended", 0))
        selector.register(sys.stdin, selectors.EVENT_READ, data=("stop", 0))
        _loop(server, wake_read)
        for pid in list(server.callers):
            server.drop(pid)


def _loop(server: _Server, wake_read: int) -> None:
    while True:
        for key, _ in server.selector.select():
            what, pid = key.data
            if what == "stop":
                return
            if what == "caller":
                server.answer(server.listener.accept()[0])
            elif what == "ended":
                os.read(wake_read, 4096)
                server.reap()
            elif pid in server.callers:
                server.drop(pid)


def _read_request(caller: socket.socket) -> _Request | None:
    streams = array.array("i")
    body = bytearray()
    room = socket.CMSG_SPACE(_NUM_STREAMS * streams.itemsize)
    while not body.endswith(b"\n"):
        chunk, extras, _, _ = caller.recvmsg(1 << 16, room)
        for _, _, data in extras:
            streams.frombytes(data[: len(data) - len(data) % streams.itemsize])
        body += chunk
        if not chunk or len(body) > _MAX_REQUEST_BYTES:
            return None
    fields = json.loads(body)
    return _Request(**fields, streams=list(streams))


def _send_quietly(caller: socket.socket, message: bytes) -> None:
    try:
        caller.sendall(message)
    except OSError:  # the caller left between its worker's end and this answer
        return


def _refresh() -> None:
    # What was fixed at import: numpy's global generator, and Ray's view of the environment.
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    if "ray" in sys.modules:
        sys.modules["ray"]._raylet.Config.initialize("")


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2:])
