"""Violations planted in the versions of items and users."""

from datetime import UTC, datetime

from pipelines.contract import Table
from pipelines.version_tables import ITEM_VERSIONS, USER_VERSIONS
from tests.infra.healthy_rows import Row, at
from tests.infra.planted import Planted, empty, missing

# A version that leaves its id takes the beginning with it, and ends where nothing begins.
_GONE = ("since_ever_once", "no_gap")


def _second_twice(rows: list[Row]) -> list[Row]:
    return [*rows, rows[1]]


def _second_ends_early(rows: list[Row]) -> list[Row]:
    return [rows[0], rows[1] | {"valid_to": at(4)}, *rows[2:]]


def _of_spans(table: Table) -> list[Planted]:
    return [
        Planted(table=table, name="rows_exist", change=empty),
        Planted(table=table, name="key_unique", change=_second_twice, implied=("no_overlap",)),
        Planted(
            table=table, name="valid_for_a_while", change=_second_ends_early, implied=("no_gap",)
        ),
        Planted(table=table, name="since_ever_once", change={"valid_from": at(1)}),
        Planted(table=table, name="no_overlap", change={"valid_to": at(6)}),
        Planted(table=table, name="no_gap", change={"valid_to": at(4)}),
        Planted(table=table, name="text_not_blank", change={"text": " "}),
        Planted(table=table, name="features_named", change={"features": {"colour": " "}}),
    ]


VERSION_CASES = [
    *_of_spans(ITEM_VERSIONS),
    *missing(ITEM_VERSIONS, item_id=(*_GONE, "identity_once"), is_identity=("identity_once",)),
    Planted(table=ITEM_VERSIONS, name="item_index_in_range", change={"item_index": 0}),
    Planted(table=ITEM_VERSIONS, name="identity_once", change={"is_identity": False}),
    Planted(table=ITEM_VERSIONS, name="duration_ms_in_range", change={"duration_ms": -1}),
    Planted(
        table=ITEM_VERSIONS,
        name="created_time_plausible",
        change={"created_time": datetime(2200, 1, 1, tzinfo=UTC)},
    ),
    Planted(table=ITEM_VERSIONS, name="tags_not_blank", change={"tags": ["music", " "]}),
    Planted(table=ITEM_VERSIONS, name="author_id_not_blank", change={"author_id": " "}),
    *_of_spans(USER_VERSIONS),
    *missing(USER_VERSIONS, user_id=_GONE),
]
