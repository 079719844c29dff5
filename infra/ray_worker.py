"""Stand in for Python when Ray starts a worker: ask the fork server for one, or be one.

Ray runs `python -I -S infra/ray_worker.py <socket> <script> [arguments]` instead of
`python <script> [arguments]`. If the server does not answer, this process becomes that Python:
slower, and otherwise the same. Imports little on purpose; see `infra/warm_server.py`.
"""

import array
import json
import os
import socket
import sys


def main() -> int:
    """Start the worker and stay until it ends.

    Returns:
        The worker's exit status.
    """
    path, argv = sys.argv[1], sys.argv[2:]
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(path)
        except OSError:
            os.execv(sys.executable, [sys.executable, *argv])
        request = {"argv": argv, "environ": dict(os.environ), "folder": os.getcwd()}
        streams = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))]
        body = json.dumps(request).encode() + b"\n"
        sent = server.sendmsg([body], streams)
        server.sendall(body[sent:])
        answer = server.recv(16)
    return int(answer or b"1")


if __name__ == "__main__":
    sys.exit(main())
