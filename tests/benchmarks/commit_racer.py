"""One of the two drivers of the race for a version: Delta's log store in a JVM of its own.

Reads lines "<version> <time to commit at>" and answers each with "acknowledged" or "refused".
The log store is the one that Delta takes for the place: a local path, or a prefix of an S3 store.
`time.monotonic` is the machine's.
"""

import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from py4j.java_gateway import JavaGateway
from py4j.protocol import Py4JJavaError

from infra.lake_location import Folder, StoreFolder, lake_folder
from infra.store_session import s3a_options
from infra.write_lock import lake_lock


def main() -> None:
    """Race until the input ends: lake, name, class path, and "locked" or nothing."""
    place, name, classes, locked = sys.argv[1:5]
    lake = lake_folder(place, os.environ)
    gateway = JavaGateway.launch_gateway(classpath=classes, die_on_exit=True)
    jvm: Any = gateway.jvm
    configuration = jvm.org.apache.hadoop.conf.Configuration()
    store = log_store(jvm, configuration, lake)
    url = str(lake) if isinstance(lake, StoreFolder) else f"file://{lake}"
    guard: Callable[[], AbstractContextManager[Any]] = nullcontext
    if locked:
        guard = lambda: lake_lock(lake, "table")  # noqa: E731
    actions = jvm.java.util.ArrayList()
    actions.add(name)
    if isinstance(lake, StoreFolder):
        warm_up(jvm, store, f"{url}/{name}", configuration)
    say("ready")
    for line in sys.stdin:
        version, at = line.split()
        path = jvm.org.apache.hadoop.fs.Path(f"{url}/_delta_log/{int(version):020d}.json")
        while time.monotonic() < float(at):
            pass
        with guard():
            say(commit(store, path, actions, configuration))
    gateway.shutdown()


def log_store(jvm: Any, configuration: Any, lake: Folder) -> Any:
    """Return the log store of a place, and tell the configuration how the place is reached."""
    if not isinstance(lake, StoreFolder):
        return jvm.io.delta.storage.HDFSLogStore(configuration)
    for name, value in s3a_options(lake).items():
        configuration.set(f"fs.s3a.bucket.{lake.bucket}.{name}", value)
    return jvm.io.delta.storage.S3SingleDriverLogStore(configuration)


def warm_up(jvm: Any, store: Any, url: str, configuration: Any) -> None:
    """Write once elsewhere, so that the first race does not wait for classes and connections."""
    path = jvm.org.apache.hadoop.fs.Path(f"{url}/_delta_log/{0:020d}.json")
    store.write(path, jvm.java.util.ArrayList().iterator(), True, configuration)


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
