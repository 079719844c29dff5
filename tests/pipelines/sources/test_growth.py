"""A log may gain days and surfaces; anything else that differs is refused by name."""

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from pipelines.sources.errors import SourceError
from pipelines.sources.growth import grow
from tests.pipelines.sequence_rows import MANIFEST

_LATER = date(2024, 2, 3)


def test_days_and_surfaces_are_gained_and_the_splits_stay() -> None:
    seen = replace(
        MANIFEST,
        end_date=_LATER,
        surfaces=("banner", "feed", "search"),
        validation_start=datetime(2024, 1, 28, tzinfo=UTC),
        test_start=datetime(2024, 1, 31, tzinfo=UTC),
    )
    grown = grow(MANIFEST, seen)
    assert grown == replace(MANIFEST, end_date=_LATER, surfaces=("feed", "search", "banner"))
    assert grow(MANIFEST, MANIFEST) == MANIFEST


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"timezone": "Asia/Shanghai"}, r"timezone of the log was 'UTC' and is 'Asia/Shanghai'"),
        ({"actions": ("click", "like")}, r"actions of the log was \('click', 'like', 'hide'\)"),
        ({"start_date": date(2023, 12, 31)}, r"begins on 2023-12-31 now, .* a new data home"),
        ({"end_date": date(2024, 1, 30)}, r"ends on 2024-01-30 now .*; put the lost days back"),
    ],
)
def test_what_would_change_the_meaning_of_rows_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        grow(MANIFEST, replace(MANIFEST, **changes))


def test_a_source_without_dates_cannot_grow() -> None:
    undated = replace(MANIFEST, has_dates=False)
    with pytest.raises(SourceError, match=r"mapped has no dates, .* make a new data home"):
        grow(undated, replace(undated, end_date=_LATER))
