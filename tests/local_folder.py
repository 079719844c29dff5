"""Tests of local lakes look at files, which only a local folder has."""

from pathlib import Path

from infra.lake_location import Folder


def local(folder: Folder) -> Path:
    """Return a folder of a lake that must be a local one."""
    assert isinstance(folder, Path)
    return folder
