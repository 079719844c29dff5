"""Mentions of a user outside of the tables go, and nothing else does."""

import gzip
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from infra.free_files import REDACTED, clean_files, is_distinctive
from tests.jobs.id_search import files_with

USER, NEIGHBOUR = "zq-é-7f3a9", "zq-é-7f3a90"


@pytest.mark.parametrize(
    ("user_id", "expected"),
    [
        ("u0000125", True),
        ("abcdef", True),
        ("4021873355", True),
        ("u125", False),
        ("402187", False),
        ("-----------", False),
    ],
)
def test_only_an_id_that_can_be_told_from_other_words_is_looked_for(
    user_id: str, expected: bool
) -> None:
    assert is_distinctive(user_id) == expected


def test_logs_go_records_are_redacted_and_what_must_stay_is_told(tmp_path: Path) -> None:
    texts = {
        "run.log": f"user {USER} failed",
        "neighbour.log": f"user {NEIGHBOUR} failed",
        "record.json": f'{{"why": "{USER}, {NEIGHBOUR}"}}',
        "model.json": f'["{USER}"]',
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "old.log.gz").write_bytes(gzip.compress(texts["run.log"].encode()))
    done = clean_files(
        sorted(tmp_path.iterdir()),
        [USER],
        kept=[tmp_path / "model.json"],
        redacted=[tmp_path / "record.json"],
    )
    assert [path.name for path in done.removed] == ["old.log.gz", "run.log"]
    assert [path.name for path in done.rewritten] == ["record.json"]
    assert [path.name for path in done.left] == ["model.json"]
    assert (tmp_path / "record.json").read_text() == f'{{"why": "{REDACTED}, {NEIGHBOUR}"}}'
    assert (tmp_path / "neighbour.log").read_text() == texts["neighbour.log"]


def test_database_loses_the_user_in_cells_and_in_what_was_deleted(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA secure_delete = OFF")
        database.execute('CREATE TABLE "my runs" (id INTEGER PRIMARY KEY, body TEXT, blob BLOB)')
        rows = [
            (1, f"by {USER}", USER.encode()),
            (2, f"by {NEIGHBOUR}", b"\xff\0"),
            (3, USER, None),
        ]
        database.executemany('INSERT INTO "my runs" VALUES (?, ?, ?)', rows)
        database.commit()
        database.execute('DELETE FROM "my runs" WHERE id = 3')
        database.commit()
    assert clean_files([path], [USER]).rewritten == (path,)
    assert files_with(tmp_path, USER, but_in=NEIGHBOUR) == []
    with closing(sqlite3.connect(path)) as database:
        found = database.execute('SELECT * FROM "my runs"').fetchall()
    assert found == [(1, f"by {REDACTED}", REDACTED.encode()), (2, f"by {NEIGHBOUR}", b"\xff\0")]
    assert clean_files([path], [USER]).rewritten == ()
