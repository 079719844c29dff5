"""The search that the tests of erasure rely on finds a planted text in each format."""

import gzip
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from tests.jobs.id_search import files_with

TEXT = 'zq"9-é'


def _parquet(path: Path) -> None:
    rows = pa.table({"nested": [[{"who": TEXT * 3}]] * 50})
    pq.write_table(rows, path / "a.parquet", compression="zstd")


def _statistics(path: Path) -> None:
    schema = pa.schema([("x", pa.int64())], metadata={"note": json.dumps({"min": TEXT})})
    pq.write_table(pa.table({"x": [1]}, schema=schema), path / "a.parquet")


def _cell(path: Path) -> None:
    with closing(sqlite3.connect(path / "a.db")) as database:
        database.execute("CREATE TABLE t (id INTEGER, body TEXT)")
        database.execute("INSERT INTO t VALUES (1, ?)", (json.dumps({"user": TEXT}),))
        database.commit()


def _deleted_cell(path: Path) -> None:
    with closing(sqlite3.connect(path / "a.db")) as database:
        database.execute("PRAGMA secure_delete = OFF")
        database.execute("CREATE TABLE t (id INTEGER, body TEXT)")
        database.executemany("INSERT INTO t VALUES (?, ?)", [(1, "other"), (2, TEXT)])
        database.commit()
        database.execute("DELETE FROM t WHERE id = 2")
        database.commit()


def _nested_json(path: Path) -> None:
    inner = json.dumps({"minValues": {"user_id": TEXT}})
    (path / "0.json").write_text('{"x": 1}\n' + json.dumps({"add": {"stats": inner}}))


def _npz(path: Path) -> None:
    np.savez_compressed(path / "a.npz", users=np.array(["b", TEXT]))


def _tensors(path: Path) -> None:
    save_file({"w": np.zeros(2)}, path / "a.safetensors", metadata={"who": TEXT})


PLANTS: dict[str, Callable[[Path], object]] = {
    "parquet, nested": _parquet,
    "parquet, statistics": _statistics,
    "sqlite": _cell,
    "sqlite, deleted": _deleted_cell,
    "json in json": _nested_json,
    "npz": _npz,
    "safetensors": _tensors,
    "gzip": lambda path: (path / "a.log.gz").write_bytes(gzip.compress(TEXT.encode())),
    "html": lambda path: (path / "a.html").write_text(f"<p>{TEXT}</p>"),
    "unknown": lambda path: (path / "a.bin").write_bytes(b"\0\1" + TEXT.encode() + b"\2"),
    "name": lambda path: (path / f"a-{TEXT}.txt").write_text(""),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_planted_text_is_found(tmp_path: Path, plant: str) -> None:
    PLANTS[plant](tmp_path)
    assert len(files_with(tmp_path, TEXT)) == 1
    assert files_with(tmp_path, "another") == []
    assert files_with(tmp_path, TEXT[:-1]) != [] and files_with(tmp_path, TEXT, but_in=TEXT) == []
