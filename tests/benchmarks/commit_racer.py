"""One of the two drivers of the race for a version: Delta's log store in a JVM of its own.

Reads lines "<version> <time to commit at>" and answers each with "acknowledged" or "refused".
The log store is the one that Delta takes for local paths. `time.monotonic` is the machine's.
"""

import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from py4j.java_gateway import JavaGateway
from py4j.protocol import Py4JJavaError

from infra.commit_lock import commit_lock


def main() -> None:
    """Race until the input ends: folder, name, class path, and the lock file or nothing."""
    folder, name, classes, lock = sys.argv[1:5]
    gateway = JavaGateway.launch_gateway(classpath=classes, die_on_exit=True)
    jvm: Any = gateway.jvm
    configuration = jvm.org.apache.hadoop.conf.Configuration()
    store = jvm.io.delta.storage.HDFSLogStore(configuration)
    say("ready")
    for line in sys.stdin:
        version, at = line.split()
        path = jvm.org.apache.hadoop.fs.Path(f"file://{folder}/{int(version):020d}.json")
        actions = jvm.java.util.ArrayList()
        actions.add(name)
        while time.monotonic() < float(at):
            pass
        with commit_lock(Path(lock)) if lock else nullcontext():
            say(commit(store, path, actions, configuration))
    gateway.shutdown()


def commit(store: Any, path: Any, actions: Any, configuration: Any) -> str:
    """Write a version; return whether the log store took it."""
    try:
        store.write(path, actions.iterator(), False, configuration)
    except Py4JJavaError as error:
        if "FileAlreadyExists" not in str(error.java_exception):
            raise
        return "refused"
    return "acknowledged"


def say(word: str) -> None:
    """Answer the parent."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
