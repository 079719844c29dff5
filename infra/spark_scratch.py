"""Spark's scratch files: rows of users lie there while a session runs, and after one was killed."""

import shutil
from pathlib import Path

import psutil

from infra.settings import Settings


def stop_session() -> None:
    """End this process's Spark session, if there is one."""
    from pyspark.sql import SparkSession

    session = SparkSession.getActiveSession()
    if session is not None:
        session.stop()


def clear_scratch(settings: Settings) -> str:
    """Remove what sessions have left in the scratch folder, unless one is running there.

    Returns:
        A line on what was done.
    """
    folder = settings.spark_folder / "scratch"
    if running := _sessions(folder):
        numbers = ", ".join(map(str, running))
        return f"Spark's scratch: kept, process {numbers} is using it; repeat once it has ended"
    found = list(folder.iterdir()) if folder.exists() else []
    for path in found:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return f"Spark's scratch: {len(found)} folders removed"


def _sessions(folder: Path) -> list[int]:
    """Return the processes of other Spark drivers whose scratch is in a folder."""
    own = {child.pid for child in psutil.Process().children(recursive=True)}
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        is_driver = bool(words) and "java" in Path(words[0]).name
        if is_driver and process.pid not in own and any(str(folder) in word for word in words):
            found.append(process.pid)
    return sorted(found)
