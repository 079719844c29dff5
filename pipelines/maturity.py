"""When labels are final: an event is mature once its actions have had the time to arrive.

It depends on where the log ends, so that it is asked when tables are read and stored in none.
"""

from datetime import UTC, datetime, timedelta

from pipelines.daypart import end_of_day
from pipelines.sources.manifest import SourceManifest


def mature_until(manifest: SourceManifest) -> datetime:
    """Return the last instant, in UTC, at which an event is mature: the log's end less the wait."""
    end = end_of_day(manifest.end_date, zone=manifest.timezone).astimezone(UTC)
    return end.replace(microsecond=0) - timedelta(seconds=manifest.maturity_seconds)
