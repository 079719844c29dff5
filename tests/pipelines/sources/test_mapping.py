"""Mapping files: what they mean, and one clear message for each mistake."""

import re
from pathlib import Path

import pytest

from pipelines.sources.errors import SourceError
from pipelines.sources.mapping import NumberColumn, TimeColumn, load_mapping

SMALL = """
log = "labelled"
primary_action = "click"
[columns]
user = "u"
item = "i"
[time]
column = "t"
unit = "ms"
[action.columns]
click = "c"
"""


def _load(folder: Path, text: str):
    file = folder / "mapping.toml"
    file.write_text(text)
    return load_mapping(str(file))


def test_small_mapping_has_defaults(tmp_path: Path) -> None:
    mapping = _load(tmp_path, SMALL)
    assert mapping.columns == {
        "columns.user": "u",
        "columns.item": "i",
        "time.column": "t",
        "action.columns.click": "c",
        "item.id": "i",
        "user.id": "u",
    }
    assert mapping.positive_actions == ("click",)
    assert (mapping.timezone, mapping.partition_unit, mapping.maturity_seconds) == ("UTC", None, 0)
    assert mapping.attribution_window_seconds == 86_400
    assert mapping.time == TimeColumn(column="t", unit="ms", pattern=None, zone="UTC")


def test_arrival_is_a_time_like_that_of_the_event(tmp_path: Path) -> None:
    arrival = '[arrival]\ncolumn = "came"\nformat = "iso"\ntimezone = "Europe/Berlin"\n'
    mapping = _load(tmp_path, SMALL + arrival)
    expected = TimeColumn(column="came", unit=None, pattern="iso", zone="Europe/Berlin")
    assert (mapping.arrival, mapping.columns["arrival.column"]) == (expected, "came")
    assert _load(tmp_path, SMALL).arrival is None


def test_documented_example_is_read(checkout: Path) -> None:
    mapping = load_mapping(str(checkout / "examples" / "mapping.toml"))
    assert (mapping.log, mapping.primary_action) == ("impressions", "click")
    assert mapping.positive_actions == ("click", "share")
    assert mapping.ids == {
        "user": "reader",
        "item": "article",
        "request": "list",
        "surface": "page",
    }
    assert mapping.action_names == {"view": "impression"}
    assert mapping.dwell == NumberColumn(column="seconds_read", scale=1000)
    assert (mapping.position, mapping.first_position) == ("slot", 1)
    assert mapping.item.file == checkout / "examples" / "articles.csv"
    assert mapping.item.text == ("title", "summary")
    zone = "Europe/Berlin"
    assert mapping.item.valid_from == TimeColumn(
        column="changed", unit=None, pattern="iso", zone=zone
    )
    assert mapping.attribution_window_seconds == 1800


def test_example_mentions_every_key(checkout: Path) -> None:
    text = (checkout / "examples" / "mapping.toml").read_text()
    keys = (
        "log format delimiter timezone partition_unit maturity_seconds attribution_window_seconds "
        "primary_action positive_actions user item request impression event surface column unit "
        "first file id text tags tags_separator author features duration "
        "valid_from"
    )
    assert "[arrival]" in text
    assert [key for key in keys.split() if not re.search(rf"\b{key}( = |\])", text)] == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "log =",
            "logg =",
            r"unknown key 'logg' \(did you mean 'log'\?\); known keys: log, format",
        ),
        ('user = "u"', 'member = "u"', r"unknown key 'member' in \[columns\]"),
        ('user = "u"\n', "", r"columns\.user is missing"),
        ('"labelled"', '"clicks"', "log must be one of impressions, labelled, positives_only"),
        ('log = "labelled"\n', "", "log is missing; say what a row is"),
        ('"ms"', '"hours"', r"time\.unit must be one of s, ms, us, not 'hours'"),
        ('unit = "ms"', 'unit = "ms"\nformat = "yyyy"', r"time has both unit and format"),
        ('column = "t"\n', "", r"time\.column is missing"),
        ('"click"\n[', '"buy"\n[', r"primary_action is 'buy', not in \[action\.columns\]"),
        ('primary_action = "click"\n', "", "primary_action is missing"),
        ('click = "c"', "click = 1", r"action\.columns\.click must be a string, not 1"),
        ('[action.columns]\nclick = "c"', "", r"action needs \[action\.columns\]"),
        ("[action.columns]", '[action]\ncolumn = "e"\n[action.columns]', "both column and columns"),
        ('"labelled"', '"impressions"', "action needs column, whose values include impressions"),
        ('"labelled"', '"positives_only"', "declare log = 'labelled'"),
        ("[columns]", 'timezone = "Mars/Olympus"\n[columns]', "timezone is 'Mars/Olympus', which"),
        (
            "[columns]",
            "maturity_seconds = -1\n[columns]",
            "maturity_seconds must be a whole number",
        ),
        ("[columns]", "positive_actions = 3\n[columns]", "positive_actions must be a list"),
        ("[columns]", 'positive_actions = ["x"]\n[columns]', "positive_actions has 'x', not in"),
        ("[columns]", "item = 3\n[columns]", "item must be a table, not 3"),
        (
            "[columns]",
            '[user.valid_from]\ncolumn = "since"\n[columns]',
            r"user\.valid_from needs a file",
        ),
        ("[columns]", "[columns", "is not TOML: .*correct that place"),
    ],
)
def test_names_the_mistake(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in SMALL
    with pytest.raises(SourceError, match=message) as caught:
        _load(tmp_path, SMALL.replace(old, new, 1))
    assert str(caught.value).startswith(f"mapping {tmp_path / 'mapping.toml'}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "message"),
    [(None, "pass MAPPING=<file.toml>"), ("/no/such.toml", "no mapping file /no/such.toml")],
)
def test_names_a_missing_mapping(path: str | None, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        load_mapping(path)
