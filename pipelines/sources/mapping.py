"""The mapping file of a user's own log: a TOML document, checked key by key.

`examples/mapping.toml` documents every key.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from pipelines.sources.canonical import MICROS_PER_UNIT
from pipelines.sources.errors import SourceError
from pipelines.sources.mapping_section import Section

LOG_KINDS = ("impressions", "labelled", "positives_only")
FORMATS = ("csv", "jsonl", "parquet")
IMPRESSION = "impression"
_TOP_KEYS = (
    "log", "format", "delimiter", "timezone", "partition_unit", "maturity_seconds",
    "attribution_window_seconds", "primary_action", "positive_actions", "columns", "time",
    "arrival", "action", "dwell", "duration", "position", "item", "user",
)  # fmt: skip
_TIME_KEYS = ("column", "unit", "format", "timezone")
_ID_COLUMNS = ("user", "item", "event", "request", "impression", "surface")
_ITEM_KEYS = (
    "file", "format", "delimiter", "id", "text", "tags", "tags_separator", "author", "created",
    "duration", "features", "valid_from",
)  # fmt: skip
_USER_KEYS = ("file", "format", "delimiter", "id", "text", "features", "valid_from")


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeColumn:
    """Say how a column writes time; neither unit nor pattern for a Parquet timestamp.

    Attributes:
        column: Name of the column.
        unit: s, ms or us since 1970, or None.
        pattern: Spark's datetime pattern or "iso", or None.
        zone: IANA zone of written times without an offset.
    """

    column: str
    unit: str | None
    pattern: str | None
    zone: str


@dataclass(frozen=True, kw_only=True, slots=True)
class NumberColumn:
    """Name a numeric column and what to multiply it by."""

    column: str
    scale: float = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class EntityColumns:
    """Say where items or users are described: in a file of their own, or in the log.

    Attributes:
        file: File or folder, None for columns of the log.
        format: Format of the file, None to tell by its ending.
        delimiter: Field separator of a CSV file.
        id: Column of the identifier.
        text: Columns whose words are joined into the text.
        tags: Column of tags.
        tags_separator: What separates them, unless they are a JSON or Parquet array.
        author: Column of the author.
        created: Column of the publication time.
        duration: Column of the length.
        features: Columns to keep as features, under their own names.
        valid_from: Column of the time from which a row holds; several rows of one id are its
            versions then. Only with a file.
    """

    file: Path | None
    format: str | None
    delimiter: str
    id: str
    text: tuple[str, ...] = ()
    tags: str | None = None
    tags_separator: str = "|"
    author: str | None = None
    created: TimeColumn | None = None
    duration: NumberColumn | None = None
    features: tuple[str, ...] = ()
    valid_from: TimeColumn | None = None

    @property
    def columns(self) -> dict[str, str]:
        """Return each key of the mapping with the column that it names."""
        named = {"id": self.id, "tags": self.tags, "author": self.author}
        named["created.column"] = self.created.column if self.created else None
        named["duration.column"] = self.duration.column if self.duration else None
        named["valid_from.column"] = self.valid_from.column if self.valid_from else None
        named |= {f"text[{place}]": name for place, name in enumerate(self.text)}
        named |= {f"features[{place}]": name for place, name in enumerate(self.features)}
        return {key: name for key, name in named.items() if name is not None}

    @property
    def is_described(self) -> bool:
        """Return whether anything but an id and a time describes the entity."""
        return bool(self.text or self.tags or self.features or self.author or self.duration)


@dataclass(frozen=True, kw_only=True, slots=True)
class LogMapping:
    """Hold a checked mapping.

    Attributes:
        path: The mapping file.
        log: What a row of the log is: one of `LOG_KINDS`.
        format: Format of the log, None to tell by its ending.
        delimiter: Field separator of a CSV log.
        timezone: IANA zone of days and dayparts.
        partition_unit: day or month; None to tell by the log's length.
        maturity_seconds: Age from which labels are final.
        attribution_window_seconds: Reach of an action back to its impression without an id.
        primary_action: Action of the headline metric.
        positive_actions: Actions that count as engagement.
        ids: Columns of user, item, event, request, impression and surface that were named.
        time: Column of the event time.
        arrival: Column of the time at which the log received the row, or None.
        action_column: Column of action names, or None.
        action_names: Value in that column to action name; others keep their own.
        action_flags: Action name to its 0/1 column, in order; empty with `action_column`.
        dwell: Column of the dwell, in ms after scaling.
        duration: Column of the item's length, in ms after scaling.
        position: Column of the rank.
        first_position: The rank of the first place, 0 or 1.
        item: Where items are described.
        user: Where users are described.
    """

    path: Path
    log: str
    format: str | None
    delimiter: str
    timezone: str
    partition_unit: str | None
    maturity_seconds: int
    attribution_window_seconds: int
    primary_action: str
    positive_actions: tuple[str, ...]
    ids: dict[str, str]
    time: TimeColumn
    arrival: TimeColumn | None
    action_column: str | None
    action_names: dict[str, str]
    action_flags: dict[str, str]
    dwell: NumberColumn | None
    duration: NumberColumn | None
    position: str | None
    first_position: int
    item: EntityColumns
    user: EntityColumns

    @property
    def columns(self) -> dict[str, str]:
        """Return each key of the mapping that names a column of the log, with that column."""
        named: dict[str, str | None] = {f"columns.{key}": name for key, name in self.ids.items()}
        named |= {"time.column": self.time.column, "action.column": self.action_column}
        named["arrival.column"] = self.arrival.column if self.arrival else None
        named |= {f"action.columns.{key}": name for key, name in self.action_flags.items()}
        named["dwell.column"] = self.dwell.column if self.dwell else None
        named["duration.column"] = self.duration.column if self.duration else None
        named["position.column"] = self.position
        for table, entity in (("item", self.item), ("user", self.user)):
            if entity.file is None:
                named |= {f"{table}.{key}": name for key, name in entity.columns.items()}
        return {key: name for key, name in named.items() if name is not None}


def load_mapping(path: str | None) -> LogMapping:
    """Read and check a mapping file.

    Args:
        path: The TOML file; paths in it are relative to its folder.

    Raises:
        SourceError: If the file is absent or not TOML, or a key is unknown, missing or wrong.
    """
    if not path:
        raise SourceError("source mapped needs a mapping: pass MAPPING=<file.toml>")
    file = Path(path)
    if not file.is_file():
        raise SourceError(f"no mapping file {file}; pass MAPPING=<file.toml>")
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise SourceError(f"mapping {file} is not TOML: {error}; correct that place") from error
    return _parse(Section(file, "", document, _TOP_KEYS))


def _parse(top: Section) -> LogMapping:
    log = top.choice("log", LOG_KINDS)
    if log is None:
        raise top.wrong("log", f"is missing; say what a row is: {', '.join(LOG_KINDS)}")
    zone = top.zone("timezone", "UTC")
    ids = top.section("columns", _ID_COLUMNS)
    named = {key: ids.required(key, "names a column") for key in _ID_COLUMNS if key in ids.values}
    for key in ("user", "item"):
        ids.required(key, f"names the column of the {key}")
    action_column, action_names, action_flags = _actions(top, log)
    primary = top.required("primary_action", "names the action of the headline metric")
    if action_flags and primary not in action_flags:
        raise top.wrong("primary_action", f"is {primary!r}, not in [action.columns]")
    positives = top.texts("positive_actions") or (primary,)
    if action_flags and (unknown := sorted(set(positives) - set(action_flags))):
        raise top.wrong("positive_actions", f"has {unknown[0]!r}, not in [action.columns]")
    position = top.section("position", ("column", "first"))
    return LogMapping(
        path=top.file,
        log=log,
        format=top.choice("format", FORMATS),
        delimiter=top.text("delimiter", ",") or ",",
        timezone=zone,
        partition_unit=top.choice("partition_unit", ("day", "month")),
        maturity_seconds=top.seconds("maturity_seconds", 0),
        attribution_window_seconds=top.seconds("attribution_window_seconds", 86_400),
        primary_action=primary,
        positive_actions=positives,
        ids=named,
        time=_time(top.section("time", _TIME_KEYS), zone),
        arrival=_optional_time(top.section("arrival", _TIME_KEYS), zone),
        action_column=action_column,
        action_names=action_names,
        action_flags=action_flags,
        dwell=_number(top, "dwell"),
        duration=_number(top, "duration"),
        position=position.text("column"),
        first_position=position.seconds("first", 0),
        item=_entity(top, "item", _ITEM_KEYS, default_id=named["item"]),
        user=_entity(top, "user", _USER_KEYS, default_id=named["user"]),
    )


def _actions(top: Section, log: str) -> tuple[str | None, dict[str, str], dict[str, str]]:
    section = top.section("action", ("column", "names", "columns"))
    column, flags = section.text("column"), section.names("columns")
    if column and flags:
        raise section.wrong("", "has both column and columns; keep one of them")
    if log == "labelled" and not flags:
        raise section.wrong("", "needs [action.columns] with one 0/1 column per action")
    if log == "impressions" and not column:
        raise section.wrong("", "needs column, whose values include impressions")
    if log == "positives_only" and flags:
        raise section.wrong("", "has 0/1 columns; declare log = 'labelled'")
    return column, section.names("names"), flags


def _time(section: Section, zone: str) -> TimeColumn:
    unit = section.choice("unit", tuple(MICROS_PER_UNIT))
    pattern = section.text("format")
    if unit and pattern:
        raise section.wrong("", "has both unit and format; keep one of them")
    return TimeColumn(
        column=section.required("column", "names the column of the time"),
        unit=unit,
        pattern=pattern,
        zone=section.zone("timezone", zone),
    )


def _optional_time(section: Section, zone: str) -> TimeColumn | None:
    return _time(section, zone) if section.values else None


def _number(parent: Section, key: str) -> NumberColumn | None:
    section = parent.section(key, ("column", "unit"))
    column = section.text("column")
    if column is None:
        return None
    unit = section.choice("unit", ("s", "ms"), "ms")
    return NumberColumn(column=column, scale=1000 if unit == "s" else 1)


def _entity(top: Section, key: str, keys: tuple[str, ...], *, default_id: str) -> EntityColumns:
    section = top.section(key, keys)
    file = section.text("file")
    created = _optional_time(section.section("created", _TIME_KEYS), top.zone("timezone", "UTC"))
    valid_from = section.section("valid_from", _TIME_KEYS)
    if valid_from.values and not file:
        raise valid_from.wrong("", "needs a file: columns of the log keep their earliest values")
    zone = top.zone("timezone", "UTC")
    return EntityColumns(
        file=(top.file.parent / file) if file else None,
        format=section.choice("format", FORMATS),
        delimiter=section.text("delimiter", ",") or ",",
        id=(section.text("id") or default_id) if file else default_id,
        text=section.texts("text"),
        tags=section.text("tags"),
        tags_separator=section.text("tags_separator", "|") or "|",
        author=section.text("author"),
        created=created,
        duration=_number(section, "duration"),
        features=section.texts("features"),
        valid_from=_time(valid_from, zone) if valid_from.values else None,
    )
