"""List, read and remove the files of a folder of the lake, local or on an object store.

Paths are relative to the folder that was asked for, with "/" between their parts, and those of a
table's data files are the ones that its log names.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from infra.lake_location import Folder, StoreFolder
from infra.object_store import client, explained

LOG = "_delta_log"


@dataclass(frozen=True, kw_only=True, slots=True)
class LakeFile:
    """Describe a file.

    Attributes:
        path: Relative to the folder that was listed.
        num_bytes: Its size.
        modified_ns: When it was written, by the clock of whoever keeps it; a store's knows
            seconds only.
    """

    path: str
    num_bytes: int
    modified_ns: int


def files_under(folder: Folder) -> list[LakeFile]:
    """Return the files under a folder, sorted by path; none where there is no such folder."""
    listed = _stored(folder) if isinstance(folder, StoreFolder) else _local(folder)
    return sorted(listed, key=lambda file: file.path)


def remove_files(folder: Folder, paths: Iterable[str]) -> None:
    """Remove files in the given order; one that is gone already is no error."""
    if not isinstance(folder, StoreFolder):
        for path in paths:
            (folder / path).unlink(missing_ok=True)
        return
    import obstore

    with explained(folder):
        for path in paths:
            obstore.delete(client(folder), path)


def read_file(folder: Folder, path: str) -> bytes:
    """Return the content of a file.

    Raises:
        FileNotFoundError: If there is none.
    """
    if not isinstance(folder, StoreFolder):
        return (folder / path).read_bytes()
    import obstore

    with explained(folder):
        return bytes(obstore.get(client(folder), path).bytes())


@contextmanager
def opened_file(folder: Folder, path: str) -> Iterator[IO[bytes] | pa.NativeFile]:
    """Open a file at any place of which a reader may begin."""
    if not isinstance(folder, StoreFolder):
        with (folder / path).open("rb") as file:
            yield file
        return
    from deltalake.fs import DeltaStorageHandler
    from pyarrow.fs import PyFileSystem

    handler: Any = DeltaStorageHandler(str(folder), delta_options(folder))
    with PyFileSystem(handler).open_input_file(path) as file:
        yield file


def is_table(folder: Folder) -> bool:
    """Return whether a folder holds a Delta table."""
    return _asked(folder, lambda: DeltaTable.is_deltatable(str(folder), delta_options(folder)))


def open_delta(folder: Folder, *, version: int | None = None) -> DeltaTable:
    """Open the Delta table of a folder, the newest version by default."""
    return _asked(
        folder,
        lambda: DeltaTable(str(folder), version=version, storage_options=delta_options(folder)),
    )


def data_paths(opened: DeltaTable) -> list[str]:
    """Return the paths of a version's data files."""
    return [unquote(path) for path in pa.table(opened.get_add_actions())["path"].to_pylist()]


def delta_options(folder: Folder) -> dict[str, str] | None:
    """Return what the reader without a JVM takes to reach a folder; None for a local one."""
    if not isinstance(folder, StoreFolder):
        return None
    options = dict(folder.options)
    if options.get("aws_endpoint_url", "").startswith("http://"):
        options["aws_allow_http"] = "true"
    return options


def _asked(folder: Folder, ask: Callable[[], Any]) -> Any:
    """Ask the reader; what a store answers instead is said in one line."""
    if not isinstance(folder, StoreFolder):
        return ask()
    try:
        return ask()
    except DeltaError:
        raise
    except OSError as error:
        with explained(folder):
            raise error from None


def _local(folder: Path) -> Iterator[LakeFile]:
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            state = path.lstat()
            yield LakeFile(
                path=path.relative_to(folder).as_posix(),
                num_bytes=state.st_size,
                modified_ns=state.st_mtime_ns,
            )


def _stored(folder: StoreFolder) -> Iterator[LakeFile]:
    import obstore

    with explained(folder):
        for batch in obstore.list(client(folder)):
            for found in batch:
                if found["size"] == 0:  # what S3A leaves for a folder
                    continue
                yield LakeFile(
                    path=str(found["path"]),
                    num_bytes=int(found["size"]),
                    modified_ns=int(found["last_modified"].timestamp()) * 10**9,
                )
