"""Follow a log that grows: what a source's description may gain, and what must stay as it was.

The splits stay where the first run put them, so that a model's test period is never moved into
another's training period by a new day.
"""

from dataclasses import fields, replace

from pipelines.sources.errors import SourceError
from pipelines.sources.manifest import SourceManifest

_MAY_GROW = ("end_date", "surfaces")
# Found anew from the log with each description; the first run's are kept.
_KEPT = ("validation_start", "test_start", "start_date", "columns")


def grow(frozen: SourceManifest, seen: SourceManifest) -> SourceManifest:
    """Return the frozen description with the days and surfaces that the log has gained.

    New surfaces come after the known ones, so that `surface_index` keeps its meaning.

    Args:
        frozen: The description that the data home was made with.
        seen: The description of the log as it is now.

    Raises:
        SourceError: If the log has no dates, lost days, gained days before its first, or differs
            in what its rows mean.
    """
    if not frozen.has_dates:
        raise SourceError(
            f"{frozen.source} has no dates, so that no new day can be told from an old one; "
            "make a new data home from the longer log"
        )
    may_differ = (*_MAY_GROW, *_KEPT)
    for name in (field.name for field in fields(SourceManifest) if field.name not in may_differ):
        held, found = getattr(frozen, name), getattr(seen, name)
        if held != found:
            raise SourceError(
                f"{name} of the log was {held!r} and is {found!r}: its rows have another meaning "
                "now; make a new data home, or put the log back as it was"
            )
    if seen.start_date < frozen.start_date:
        raise SourceError(
            f"the log begins on {seen.start_date} now, the data home on {frozen.start_date}: "
            "days before the first need a new data home"
        )
    if seen.end_date < frozen.end_date:
        raise SourceError(
            f"the log ends on {seen.end_date} now and reached {frozen.end_date} before; "
            "put the lost days back"
        )
    new = sorted(set(seen.surfaces) - set(frozen.surfaces))
    return replace(frozen, end_date=seen.end_date, surfaces=(*frozen.surfaces, *new))
