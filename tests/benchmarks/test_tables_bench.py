"""The table benchmark in its short form: every engine gives the rows worked out by hand."""

import json
import os
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.benchmarks.result_line import print_result
from tests.benchmarks.tables import GOALS, figures_of
from tests.benchmarks.tables_log import LogPlan, RawLog, make_log
from tests.benchmarks.tables_output import read_rows, row_hash, written_files
from tests.benchmarks.tables_ranklake import run_increment, run_ranklake
from tests.benchmarks.tables_rivals import run_duckdb, run_polars, run_pyspark
from tests.benchmarks.tables_run import LIMIT_BYTES
from tests.benchmarks.tables_watch import OUT_OF_MEMORY, run_child

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ENGINES = ("duckdb", "polars", "pyspark", "ranklake")
_DAY = datetime(2026, 1, 1, tzinfo=UTC)
# user, event, item, minutes of the event, minutes of the arrival, actions
_ROWS = [
    ("a", "e1", "i2", 600, 601, 1),
    ("a", "e1", "i2", 600, 600, 3),  # arrived on the same day: the greater actions win
    ("a", "e1", "i1", 599, 600, 7),  # of an earlier time: loses, for all its actions
    ("a", "e2", "i1", 630, 631, 0),  # thirty minutes after e1: the same visit
    ("a", "e3", "i9", 661, 661, 9),  # thirty-one after e2: a new visit; an unknown item
    ("a", "e3", "i9", 661, 661 + 1440, 8),  # arrived on the next day: wins, for all its few actions
    ("a", "e5", "i1", 662, 670, 2),  # the same time as e4: the event id decides
    ("a", "e4", "i2", 662, 662, 4),
    ("b", "e1", "i1", 5, 5, 5),  # another user's event of the same id
]
_CATALOGUE = {"item_id": ["i1", "i2"], "item_index": [11, 22], "category_index": [1, 2]}
_EXPECTED = {
    "a": (5, [22, 11, 0, 22, 11], [2, 1, 0, 2, 1], [600, 630, 661, 662, 662], [3, 0, 8, 4, 2]),
    "b": (1, [11], [1], [5], [5]),
}
_SESSIONS = {"a": [1, 1, 2, 2, 2], "b": [1]}


@pytest.fixture(scope="module")
def mini_log(tmp_path_factory: pytest.TempPathFactory) -> RawLog:
    """Write the rows above, and a user c with three events more than a row may hold."""
    many = [("c", f"e{n:03}", "i1", n * 31 if n < 3 else 100 + n, 5000, 0) for n in range(203)]
    folder = tmp_path_factory.mktemp("mini-log")
    log = RawLog(days=(folder / "day-0.parquet", folder / "day-1.parquet"), items=folder / "i")
    for day, path in enumerate(log.days):
        rows = [row for row in _ROWS + many if row[4] // 1440 == day or (day and row[4] == 5000)]
        pq.write_table(_table(rows, _DAY.date() + timedelta(days=day)), path)
    types = pa.schema([("item_id", pa.string()), ("item_index", "i4"), ("category_index", "i4")])
    pq.write_table(pa.table(_CATALOGUE, types), log.items)
    return log


def _table(rows: list[tuple[Any, ...]], filed: date) -> pa.Table:
    user, event, item, minute, arrival, actions = zip(*rows, strict=True)
    times = [
        pa.array([_DAY + timedelta(minutes=m) for m in column]) for column in (minute, arrival)
    ]
    return pa.table(
        {
            "event_id": pa.array(event),
            "user_id": pa.array(user),
            "item_id": pa.array(item),
            "event_time": times[0].cast(pa.timestamp("us", tz="UTC")),
            "arrival_time": times[1].cast(pa.timestamp("us", tz="UTC")),
            "event_date": pa.array([filed] * len(rows)),
            "action_bits": pa.array(actions, pa.int32()),
        }
    )


@pytest.fixture
def run(spark: "SparkSession", tmp_path: Path) -> Callable[..., list[Path]]:
    """Return what runs an engine over a log, told its size, and returns the files it wrote."""

    def run_one(engine: str, log: RawLog, events: int = 1) -> list[Path]:
        output = tmp_path / f"{engine}-{events}"
        if engine == "duckdb":
            run_duckdb(log, output, scratch=tmp_path / "scratch", memory_bytes=2**30, events=events)
        elif engine == "polars":
            run_polars(log, output)
        elif engine == "pyspark":
            run_pyspark(spark, log, output)
        else:
            run_ranklake(spark, log, output)
        return written_files(output)

    return run_one


@pytest.mark.parametrize("engine", ENGINES)
def test_engine_gives_the_rows_worked_out_by_hand(
    run: Callable[..., list[Path]], mini_log: RawLog, engine: str
) -> None:
    rows = {row[0]: row for row in read_rows(run(engine, mini_log))}
    assert set(rows) == {"a", "b", "c"}
    first = int(_DAY.timestamp()) * 1_000_000
    for user, (count, items, categories, minutes, actions) in _EXPECTED.items():
        micros = [first + minute * 60_000_000 for minute in minutes]
        assert rows[user][1:] == (count, items, categories, micros, actions, _SESSIONS[user])
    # Of user c's 203 events the oldest three, each a visit of its own, are not among the newest.
    assert rows["c"][1] == 200 and rows["c"][6] == [1] * 200
    assert rows["c"][4] == [first + (100 + n) * 60_000_000 for n in range(3, 203)]


def test_engines_write_equal_rows_of_a_log_with_repeats_and_so_does_a_day_more(
    run: Callable[..., list[Path]], spark: "SparkSession", tmp_path: Path
) -> None:
    log = make_log(LogPlan(events=10_000, days=4), tmp_path / "logs")
    raw = pa.concat_tables([pq.read_table(path) for path in log.days])
    assert raw.num_rows == 10_000
    keys = {(row["user_id"], row["event_id"]) for row in raw.select([0, 1]).to_pylist()}
    assert 0.02 < 1 - len(keys) / 10_000 < 0.06
    hashes = {engine: row_hash(run(engine, log)) for engine in ENGINES}
    assert len(set(hashes.values())) == 1, hashes
    assert hashes["duckdb"].startswith("100-")
    shared_out = run("duckdb", log, events=20_000_000)  # as it does with a log of that size
    assert len(shared_out) == 4
    assert row_hash(shared_out) == hashes["duckdb"]

    facts = run_increment(spark, log, tmp_path / "increment")
    assert row_hash(written_files(tmp_path / "increment" / "rows")) == hashes["duckdb"]
    assert facts["broken"] == []
    assert 0.5 < facts["touched_fraction"] <= 1.0  # 25 events a day and user, on the average
    assert 0.1 < facts["written_bytes"] / facts["segment_bytes"] < 0.4  # one day of four


def test_skewed_log_holds_a_bot_and_gives_equal_rows(
    run: Callable[..., list[Path]], tmp_path: Path
) -> None:
    log = make_log(LogPlan(events=20_000, days=2, shape="skewed"), tmp_path / "logs")
    users = pa.concat_tables([pq.read_table(path) for path in log.days])["user_id"]
    most = sorted((row["counts"] for row in users.value_counts().to_pylist()), reverse=True)
    assert most[0] > 900 and sum(most[:20]) > 0.3 * 20_000
    counts = {row["values"]: row["counts"] for row in users.value_counts().to_pylist()}
    assert 150 < counts["u0000000"] < 250 and 900 < counts["u0000001"] < 1_100
    assert row_hash(run("ranklake", log)) == row_hash(run("duckdb", log))


def test_hash_sees_the_order_within_arrays_and_not_that_of_rows(tmp_path: Path) -> None:
    def hash_of(name: str, rows: list[tuple[str, list[int]]]) -> str:
        columns: dict[str, Any] = {
            "user_id": [user for user, _ in rows],
            "num_events": [len(values) for _, values in rows],
            "event_time": pa.array(
                [[v * 1_000_000 for v in values] for _, values in rows],
                pa.list_(pa.timestamp("us", tz="UTC")),
            ),
        }
        names = ("item_index", "category_index", "action_bits", "session_index")
        columns |= {column: [values for _, values in rows] for column in names}
        pq.write_table(pa.table(columns), tmp_path / name)
        return row_hash([tmp_path / name])

    plain = hash_of("plain", [("a", [1, 2]), ("b", [3])])
    assert hash_of("rows", [("b", [3]), ("a", [1, 2])]) == plain
    assert hash_of("arrays", [("a", [2, 1]), ("b", [3])]) != plain
    assert hash_of("twice", [("a", [1, 2]), ("b", [3]), ("b", [3])]) != plain
    assert hash_of("other", [("a", [1, 2]), ("c", [3])]) != plain


def test_engine_above_the_limit_is_stopped_and_said_to_be_out_of_memory(tmp_path: Path) -> None:
    plan = {"engine": "duckdb", "folder": str(tmp_path / "work"), "cache": str(tmp_path / "logs")}
    plan |= {"log": {"events": 10_000}, "repeats": 1, "limit_bytes": LIMIT_BYTES, "partitions": 1}
    found = run_child(
        "tests.benchmarks.tables_child",
        plan,
        limit_bytes=20 * 2**20,
        timeout_seconds=60,
        environ=os.environ,
    )
    assert found.state == OUT_OF_MEMORY
    assert found.peak_bytes > 20 * 2**20


def test_line_holds_every_goal_and_null_for_what_was_not_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sizes = (5_000_000, 20_000_000, 100_000_000)
    cells: dict[tuple[str, int], dict[str, Any]] = {
        ("ranklake", events): {"seconds": events / 1e6, "peak_gib": 3.0, "hash": "h"}
        for events in sizes
    }
    cells["pyspark", 20_000_000] = {"seconds": 50.0, "peak_gib": 6.0, "hash": "h"}
    cells["duckdb", 20_000_000] = {"seconds": 8.0, "peak_gib": 6.0, "hash": "other"}
    cells["duckdb", 100_000_000] = {"seconds": None, "peak_gib": 8.1, "hash": None}
    cells["increment", 100_000_000] = {"seconds": 4.0, "peak_gib": 3.0, "hash": "h"}
    assert not print_result("tables", figures_of(cells, sizes), goals=GOALS)
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["bench"] == "tables"
    met = {goal["figure"]: goal["met"] for goal in line["goals"]}
    assert met == {
        "ranklake_over_pyspark_20m": True,  # 20 s of 50 s
        "ranklake_over_duckdb_20m": False,  # 20 s of 8 s
        "ranklake_growth_exponent": True,  # in proportion
        "ranklake_over_duckdb_100m": False,  # there is no figure of DuckDB
        "increment_over_rebuild_100m": True,  # 4 s of 100 s
        "ranklake_peak_gib_100m": True,
        "unequal_outputs": False,  # one of 20M
    }
    assert line["figures"]["duckdb_seconds_100m"] is None
    assert line["figures"]["ranklake_growth_exponent"] == pytest.approx(1.0)
