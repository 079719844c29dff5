"""Great Expectations: healthy tables pass, each planted violation turns its own rule red."""

import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from infra import expectation_store
from infra.accepted_days import accept_day
from infra.expectations import suite
from infra.quality import QualityGate, TableQuality
from infra.rules import rows_exist
from pipelines.contract import Table
from pipelines.day_tables import DAY_TABLES
from pipelines.references import REFERENCES
from pipelines.sources.manifest import SourceManifest
from pipelines.tables import ALL_TABLES, INTERACTIONS, USERS
from tests.infra.healthy_rows import HEALTHY as HEALTHY_TABLES
from tests.infra.healthy_rows import MANIFEST, Row
from tests.infra.planted import Planted, empty, planted_rows
from tests.infra.planted_batch import batch_frame, batch_of
from tests.infra.planted_days import DAYS, HEALTHY_DAYS
from tests.infra.planted_events import EVENTS
from tests.infra.planted_item_days import ITEM_DAY_CASES
from tests.infra.planted_segments import SEGMENT_CASES
from tests.infra.planted_sequences import SEQUENCE_CASES
from tests.infra.planted_tables import TABLES
from tests.infra.planted_tokens import TOKENS
from tests.infra.planted_versions import VERSION_CASES

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PLANTED = (
    *EVENTS,
    *VERSION_CASES,
    *TABLES,
    *ITEM_DAY_CASES,
    *SEGMENT_CASES,
    *SEQUENCE_CASES,
    *TOKENS,
    *DAYS,
)
HEALTHY = HEALTHY_TABLES | HEALTHY_DAYS
SUITES = (*ALL_TABLES, *DAY_TABLES, REFERENCES)


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> QualityGate:
    """Return a gate in a new folder."""
    home = tmp_path_factory.mktemp("quality")
    return QualityGate(home / "store", docs=home / "docs")


def _validate(
    spark: "SparkSession", gate: QualityGate, table: Table, rows: Iterable[Row]
) -> TableQuality:
    values = [tuple(row.get(name) for name in table.column_names) for row in rows]
    frame = spark.createDataFrame(values, table.schema).coalesce(1)
    return gate.validate(frame, table, rules=suite(table, MANIFEST))


def _red(quality: TableQuality) -> set[str]:
    return {result.name for result in quality.results if not result.success}


@pytest.mark.parametrize("table", SUITES, ids=lambda table: table.name)
def test_healthy_rows_break_nothing(spark: "SparkSession", gate: QualityGate, table: Table) -> None:
    quality = _validate(spark, gate, table, HEALTHY[table.name])
    assert _red(quality) == set()
    assert [result.name for result in quality.results] == [
        rule.name for rule in suite(table, MANIFEST)
    ]


def test_every_expectation_has_a_planted_violation() -> None:
    planted = {(case.table.name, case.name) for case in PLANTED}
    rules = {(table.name, rule.name) for table in SUITES for rule in suite(table, MANIFEST)}
    assert planted == rules
    assert len(planted) == len(PLANTED)


_OTHERS = ({"has_dates": False}, {"has_impressions": False}, {"partition_unit": "month"})


@pytest.mark.parametrize("other", _OTHERS, ids=lambda other: next(iter(other)))
def test_other_kinds_of_sources_have_no_rule_that_nothing_breaks(other: dict[str, Any]) -> None:
    planted = {(case.table.name, case.name) for case in PLANTED}
    manifest = replace(MANIFEST, **other)
    suites = {(t.name, w): suite(t, manifest, whole=w) for t in SUITES for w in (True, False)}
    assert {(name, rule.name) for (name, _), rules in suites.items() for rule in rules} <= planted


def test_only_without_days_before_a_day_may_the_cuts_be_empty() -> None:
    def needs_rows(manifest: SourceManifest) -> set[str]:
        rules = {table.name: suite(table, manifest)[0].name for table in ALL_TABLES}
        return {name for name, first in rules.items() if first == rows_exist().name}

    one_day = replace(MANIFEST, end_date=MANIFEST.start_date)
    for without_past in (replace(MANIFEST, has_dates=False), one_day):
        assert needs_rows(MANIFEST) - needs_rows(without_past) == {"percentile_cuts"}


def test_names_are_unique_and_fit_for_asset_checks() -> None:
    for table in SUITES:
        names = [rule.name for rule in suite(table, MANIFEST)]
        assert len(set(names)) == len(names)
        assert all(name.isidentifier() for name in names)


@pytest.mark.parametrize("table", SUITES, ids=lambda table: table.name)
def test_planted_violations_turn_their_rules_red_and_only_what_they_imply(
    spark: "SparkSession", gate: QualityGate, table: Table
) -> None:
    cases = [c for c in PLANTED if c.table is table and c.change is not empty]
    batch = batch_of(suite(table, MANIFEST), cases)
    found = gate.validate(
        batch_frame(spark, table, cases, healthy=HEALTHY[table.name]), table, rules=batch.rules
    )
    assert {r.name: r.success for r in found.results} == batch.met
    assert {name.split("__")[0] for name, met in batch.met.items() if not met} >= {
        case.name for case in cases
    }


_EMPTY = [case for case in PLANTED if case.change is empty]


@pytest.mark.parametrize("case", _EMPTY, ids=lambda case: case.table.name)
def test_empty_table_breaks_its_row_count_and_the_shares_alone(
    spark: "SparkSession", gate: QualityGate, case: Planted
) -> None:
    quality = _validate(spark, gate, case.table, [])
    assert _red(quality) == {case.name, *case.implied}


@pytest.mark.parametrize("table", ALL_TABLES, ids=lambda table: table.name)
def test_every_column_has_a_rule_that_a_planted_value_breaks(table: Table) -> None:
    rules = {rule.name: rule for rule in suite(table, MANIFEST)}
    healthy = HEALTHY[table.name]
    covered: set[str] = set()
    for case in (c for c in PLANTED if c.table is table):
        planted = planted_rows(case, healthy)
        for column in table.column_names:
            before, after = ([row.get(column) for row in rows] for rows in (healthy, planted))
            if rules[case.name].looks_at(column) and before != after:
                covered.add(column)
    assert covered == set(table.column_names)


def test_critical_rules_block_and_others_warn(spark: "SparkSession", gate: QualityGate) -> None:
    rows = HEALTHY["interactions"]
    broken = _validate(spark, gate, INTERACTIONS, [rows[0] | {"user_id": None}, *rows[1:]])
    assert [result.name for result in broken.broken] == ["user_id_present"]
    assert broken.broken[0].observed == "1 of 3 rows (33.3%)"
    assert broken.warned == ()
    warned = _validate(spark, gate, INTERACTIONS, [rows[0] | {"local_hour": 1}, *rows[1:]])
    assert warned.broken == ()
    assert [result.name for result in warned.warned] == ["local_hour_matches_time"]


def test_pages_show_every_table_name_no_user_and_need_no_network(
    spark: "SparkSession", tmp_path: Path
) -> None:
    gate = QualityGate(tmp_path / "store", docs=tmp_path / "docs")
    rows = [
        row | {"user_id": "secret-user", "surface": "secret-surface"}
        for row in HEALTHY["interactions"]
    ]
    for _ in range(2):  # the newest result of a table replaces the older one
        _validate(spark, gate, INTERACTIONS, rows)
    index = gate.build_docs()
    pages = {path: path.read_text() for path in (tmp_path / "docs").rglob("*.html")}
    assert index in pages
    assert "interactions" in pages[index]
    assert "failed" in pages[index]
    assert len([path for path in pages if "validations" in path.parts]) == 1
    validation = next(text for path, text in pages.items() if "validations" in path.parts)
    assert "surface is one of feed, search" in validation
    kept = "".join(path.read_text() for path in (tmp_path / "store").rglob("*.json"))
    for text in (*pages.values(), kept):
        assert "secret" not in text
        assert "<script" not in text
        assert 'src="http' not in text
        assert 'href="http' not in text


def test_pages_link_each_run_and_keep_the_newest_results_of_a_table(
    spark: "SparkSession", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expectation_store, "KEPT_RUNS", 2)
    gate = QualityGate(tmp_path / "store", docs=tmp_path / "docs")
    accept_day(tmp_path / "store", day="2026-01-05", why="a public holiday")
    runs = [f"{number}2345678-1234-1234-1234-123456789abc" for number in range(3)]
    frame = spark.createDataFrame([("u1", 1)], "user_id string, user_index int").coalesce(1)
    rules = tuple(r for r in suite(USERS, MANIFEST) if r.name == "rows_exist")
    for run in runs:
        gate.validate(frame, USERS, rules=rules, run_id=run)
        gate.build_docs(ui="http://127.0.0.1:3000/")
    index = (tmp_path / "docs" / "index.html").read_text()
    pages = list((tmp_path / "docs" / "validations").rglob("*.html"))
    assert {page.relative_to(tmp_path / "docs").parts[2] for page in pages} == set(runs[1:])
    for run in runs[1:]:
        assert f"href='http://127.0.0.1:3000/runs/{run}'" in index
        page = next(page for page in pages if run in page.parts)
        assert str(page.relative_to(tmp_path / "docs")) in index
        assert f"href='http://127.0.0.1:3000/runs/{run}'" in page.read_text()
        back = page.read_text().split("class='run'><a href='")[1].split("'")[0]
        assert (page.parent / back).resolve() == tmp_path / "docs" / "index.html"
    assert runs[0] not in index
    assert "a public holiday" in index


def test_rule_that_cannot_be_evaluated_is_an_error_and_not_a_pass(
    spark: "SparkSession", gate: QualityGate
) -> None:
    frame = spark.createDataFrame([("u1",)], "user_id string")
    with pytest.raises(Exception, match="user_index"):
        gate.validate(frame, USERS, rules=suite(USERS, MANIFEST))


def test_process_without_a_main_file_can_validate(checkout: Path, tmp_path: Path) -> None:
    """The web UI's run processes have none, and PySpark would end them as doctests."""
    code = (
        "from pathlib import Path; from infra.expectation_store import new_context; "
        f"new_context(Path({str(tmp_path)!r}), docs=Path({str(tmp_path / 'docs')!r})); "
        "print('ready')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip().endswith("ready"), done.stderr[-2000:]
