"""What a measured log must hold to be described, each lack with one message and its remedy."""

from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn
from zoneinfo import ZoneInfo

from pipelines.sources.canonical import MICROS_PER_UNIT
from pipelines.sources.errors import SourceError
from pipelines.sources.manifest import NEED_IMPRESSIONS, NO_IMPRESSIONS, SourceManifest
from pipelines.sources.mapping import IMPRESSION, LogMapping, TimeColumn
from pipelines.sources.time_span import LogSpan, describe_span

MAX_ACTIONS, MAX_SURFACES = 30, 500
_PLAUSIBLE_YEARS = range(1990, 2100)
_NO_WORDS = "the mapping names no text, tags, author, duration or features of items"
_NEED_WORDS = (
    "item_text", "item_embeddings", "semantic_ids", "member_prompts", "item_prompts", "retriever",
    "retrieval_evaluation", "retrieval_index", "prompt_ranker", "expert_plan",
    "optimized_prompt_ranker",
)  # fmt: skip


def describe_log(
    span: LogSpan,
    *,
    mapping: LogMapping,
    log: Path,
    zone: str | None,
    columns: dict[str, str],
) -> SourceManifest:
    """Describe a measured log.

    Args:
        span: What one pass over the log told.
        mapping: The checked mapping.
        log: Path of the log, for messages.
        zone: IANA zone of days, None for the mapping's.
        columns: Columns of the log with their types.

    Raises:
        SourceError: If the log is empty or contradicts the mapping.
    """
    if not span.num_rows:
        raise SourceError(f"the log {log} has no rows; pass DATA=<a log with events>")
    _check_times(span, mapping, log)
    actions = _actions(span, mapping, log)
    _check_surfaces(span, mapping, log)
    zone = _zone(zone, mapping.timezone)
    return describe_span(
        span,
        zone=zone,
        columns=columns,
        source="mapped",
        actions=actions,
        primary_action=mapping.primary_action,
        positive_actions=mapping.positive_actions,
        surfaces=span.surfaces,
        partition_unit=mapping.partition_unit or span.partition_unit(zone=zone),
        has_impressions=mapping.log != "positives_only",
        maturity_seconds=mapping.maturity_seconds,
        attribution_window_seconds=mapping.attribution_window_seconds,
        actions_filed_apart=mapping.log == "impressions",
        cannot_feed=_cannot_feed(mapping),
    )


def _zone(override: str | None, written: str) -> str:
    try:
        return ZoneInfo(override or written).key
    except (KeyError, ValueError, OSError):
        raise SourceError(
            f"{override!r} is no IANA time zone; use one like Europe/Berlin"
        ) from None


def _cannot_feed(mapping: LogMapping) -> dict[str, str]:
    reasons = {}
    is_described = mapping.item.is_described or (
        mapping.item.file is None and mapping.duration is not None
    )
    if not is_described:
        reasons |= dict.fromkeys(_NEED_WORDS, _NO_WORDS)
    if mapping.log == "positives_only":
        reasons |= dict.fromkeys(NEED_IMPRESSIONS, NO_IMPRESSIONS)
    return reasons


def _check_times(span: LogSpan, mapping: LogMapping, log: Path) -> None:
    time = mapping.time
    if not span.starts:
        _refuse_times("time", time, span.example, log=log, mapping=mapping)
    middle = datetime.fromtimestamp(span.starts[len(span.starts) // 2], UTC)
    if time.unit and middle.year not in _PLAUSIBLE_YEARS:
        fitting = _fitting_unit(span.example)
        remedy = f"set time.unit = {fitting!r}" if fitting else "correct time.unit"
        raise SourceError(
            f"column {time.column!r} of {log} read as {time.unit!r} gives times around "
            f"{middle:%Y-%m-%d}; {remedy} in {mapping.path}"
        )
    _check_arrivals(span, mapping, log)


def _check_arrivals(span: LogSpan, mapping: LogMapping, log: Path) -> None:
    """Refuse a log none of whose arrivals can be read, or all of which are before its events."""
    arrival, example = mapping.arrival, span.arrival_example
    if arrival is None or example is None:
        return
    if span.last_arrival is None:
        _refuse_times("arrival", arrival, example, log=log, mapping=mapping)
    first = datetime.fromtimestamp(span.starts[0], UTC)
    if span.last_arrival < first:
        raise SourceError(
            f"column {arrival.column!r} of {log} reads as arrivals up to {span.last_arrival}, "
            f"before the first event of {first}; correct [arrival] in {mapping.path}"
        )


def _refuse_times(
    section: str, time: TimeColumn, example: str | None, *, log: Path, mapping: LogMapping
) -> NoReturn:
    wanted = f"in the unit {time.unit!r}" if time.unit else f"in the format {time.pattern!r}"
    fitting = _fitting_unit(example)
    hint = f"set {section}.unit = {fitting!r} (no format)"
    remedy = f"correct [{section}]" if fitting is None else hint
    raise SourceError(
        f"no {section} in column {time.column!r} of {log} can be read {wanted}, for example "
        f"{example!r}; {remedy} in {mapping.path}"
    )


def _fitting_unit(example: str | None) -> str | None:
    try:
        number = float(example or "")
    except ValueError:
        return None
    for unit, micros in MICROS_PER_UNIT.items():
        years_since_1970 = number * micros / 1e6 / (365.25 * 86_400)
        if int(1970 + min(years_since_1970, 1e6)) in _PLAUSIBLE_YEARS:
            return unit
    return None


def _actions(span: LogSpan, mapping: LogMapping, log: Path) -> tuple[str, ...]:
    if mapping.action_flags:
        return tuple(mapping.action_flags)
    place = f"column {mapping.action_column!r} of {log}"
    values = ", ".join(span.actions[:MAX_ACTIONS])
    if mapping.log == "impressions" and IMPRESSION not in span.actions:
        raise SourceError(
            f"{place} has no value {IMPRESSION!r}; its values are: {values}; "
            f"rename one in [action.names] of {mapping.path}, or declare log = 'positives_only'"
        )
    if mapping.log == "positives_only" and IMPRESSION in span.actions:
        raise SourceError(f"{place} has impressions; declare log = 'impressions' in {mapping.path}")
    if mapping.primary_action not in span.actions:
        raise SourceError(
            f"primary_action {mapping.primary_action!r} is not in {place}; its values are: "
            f"{values}; correct {mapping.path}"
        )
    named = dict.fromkeys((mapping.primary_action, *mapping.positive_actions, *span.actions))
    actions = tuple(name for name in named if name != IMPRESSION)
    if len(actions) > MAX_ACTIONS:
        raise SourceError(
            f"{place} has more than {MAX_ACTIONS} values: {values}, ...; "
            f"choose another column or join values in [action.names] of {mapping.path}"
        )
    return actions


def _check_surfaces(span: LogSpan, mapping: LogMapping, log: Path) -> None:
    if len(span.surfaces) > MAX_SURFACES:
        raise SourceError(
            f"column {mapping.ids.get('surface')!r} of {log} has more than {MAX_SURFACES} values, "
            f"too many for a surface; correct columns.surface in {mapping.path}"
        )
