"""Decode every file under a folder and tell which hold a text; it knows nothing of ranklake."""

import gzip
import io
import json
import sqlite3
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from safetensors import safe_open

_ENCODINGS = ("utf-8", "utf-16-le", "utf-32-le")


def files_with(folder: Path, text: str, *, but_in: str | None = None) -> list[str]:
    """Return the files that hold a text, relative to the folder.

    Args:
        folder: Where to look, in all folders below.
        text: What must be nowhere.
        but_in: A longer text in which it may stand.
    """
    return [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and any(_has(found, text, but_in) for found in _texts(path))
    ]


def _has(found: str | bytes, text: str, but_in: str | None) -> bool:
    if isinstance(found, str):
        return text in (found if but_in is None else found.replace(but_in, ""))
    for encoding in _ENCODINGS:
        data = found if but_in is None else found.replace(but_in.encode(encoding), b"")
        if text.encode(encoding) in data:
            return True
    return False


def _texts(path: Path) -> Iterator[str | bytes]:
    yield path.name
    yield from _decoded(path.name, path.read_bytes())
    if path.name.endswith(".parquet"):
        with pq.ParquetFile(path) as file:
            yield from _strings(file.metadata.metadata)
            for group in range(file.metadata.num_row_groups):
                yield from _strings(file.metadata.row_group(group).to_dict())
            yield from _strings(file.read().to_pylist())
    if path.suffix == ".safetensors":
        with safe_open(path, framework="np") as tensors:
            yield str(tensors.metadata())
            for name in tensors.keys():  # noqa: SIM118 - not a dict
                yield from (name, tensors.get_tensor(name).tobytes())
    if path.read_bytes().startswith(b"SQLite format 3\0"):
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            yield from database.iterdump()
            for (table,) in database.execute("SELECT name FROM sqlite_master").fetchall():
                try:
                    yield from _strings(database.execute(f'SELECT * FROM "{table}"').fetchall())
                except sqlite3.OperationalError:
                    continue  # an index


def _decoded(name: str, data: bytes) -> Iterator[str | bytes]:
    """Yield bytes as they are, unpacked, and as the values of JSON."""
    yield data
    if data.startswith(b"\x1f\x8b"):
        yield from _decoded(name.removesuffix(".gz"), gzip.decompress(data))
    elif name.endswith((".npz", ".zip")):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.namelist():
                yield from _decoded(member, archive.read(member))
    elif name.endswith(".npy"):
        yield from _strings(np.load(io.BytesIO(data), allow_pickle=False).tolist())
    elif name.endswith((".json", ".jsonl", ".crc")):
        for line in [data, *data.splitlines()]:
            try:
                yield from _strings(json.loads(line))
            except ValueError:
                continue


def _strings(value: Any) -> Iterator[str | bytes]:
    """Yield every text in a nested value; a text that is JSON, as in Delta's log, is opened too."""
    if isinstance(value, bytes):
        yield value
        yield from _opened(value.decode("utf-8", "replace"))
    elif isinstance(value, str):
        yield from _opened(value)
    elif isinstance(value, dict):
        yield from _strings([*value.keys(), *value.values()])
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)


def _opened(text: str) -> Iterator[str | bytes]:
    yield text
    if text[:1] in ("{", "["):
        try:
            yield from _strings(json.loads(text))
        except ValueError:
            return
