"""Local time of the simulated feed: when the log starts, and the hour on a user's clock."""

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np

from pipelines.sources.simulation.config import FeedConfig

HOUR_SECONDS = 3_600
DAY_SECONDS = 24 * HOUR_SECONDS
# Visits per local hour, night to evening: every daypart holds a fair share.
HOUR_WEIGHTS = np.repeat([0.6, 1.0, 1.1, 1.3], 6) / np.repeat([0.6, 1.0, 1.1, 1.3], 6).sum()


def local_midnight(config: FeedConfig, day: int) -> datetime:
    """Return the instant, in UTC, at which a local day of the log starts."""
    midnight = datetime.combine(date.fromisoformat(config.start_date), time())
    local = (midnight + timedelta(days=day)).replace(tzinfo=ZoneInfo(config.timezone))
    return local.astimezone(UTC)


@lru_cache(maxsize=4)
def _offsets(config: FeedConfig) -> np.ndarray:
    """Return the zone's offset in seconds for every quarter of an hour since the start."""
    start = local_midnight(config, 0)
    zone = ZoneInfo(config.timezone)
    instants = (start + timedelta(minutes=15 * k) for k in range((config.days + 3) * 96))
    offsets = [instant.astimezone(zone).utcoffset() for instant in instants]
    return np.array([offset.total_seconds() if offset else 0.0 for offset in offsets])


def local_seconds(config: FeedConfig, seconds: np.ndarray) -> np.ndarray:
    """Turn seconds since the log's start into seconds on the local clock since its first midnight.

    Args:
        config: The feed's knobs; its zone counts, daylight saving included.
        seconds: Elapsed seconds, from zero to three days after the log's end.
    """
    offsets = _offsets(config)
    return seconds + offsets[(seconds // 900).astype(int)] - offsets[0]


def log_seconds(config: FeedConfig) -> float:
    """Return the log's length in elapsed seconds, daylight saving included."""
    return (local_midnight(config, config.days) - local_midnight(config, 0)).total_seconds()
