"""When users come: visits spread over the log by the hour, one to three requests in each."""

import numpy as np

from pipelines.sources.simulation.calendar import (
    DAY_SECONDS,
    HOUR_SECONDS,
    HOUR_WEIGHTS,
    log_seconds,
)
from pipelines.sources.simulation.config import FeedConfig

REQUESTS_PER_VISIT = np.array([0.3, 0.4, 0.3])  # probabilities of 1, 2 and 3
# Longer than the slowest reader takes, so that a request's outcomes are visible to the next one.
GAP_SECONDS = (300.0, 900.0)


def request_times(config: FeedConfig, *, num_users: int, rng: np.random.Generator) -> np.ndarray:
    """Draw each user's request times, ascending, padded with infinity.

    Args:
        config: The feed's knobs.
        num_users: Rows to draw.
        rng: The block's random stream.

    Returns:
        Elapsed seconds since the log's start, shape (num_users, most requests of a user). Every
        user has at least one request unless the gaps push it past the log's end.
    """
    visits_U = 1 + rng.poisson(max(config.sessions_per_user - 1.0, 0.0), num_users)
    most = int(visits_U.max())
    day_UV = rng.integers(0, config.days, (num_users, most))
    hour_UV = rng.choice(24, (num_users, most), p=HOUR_WEIGHTS)
    start_UV = day_UV * DAY_SECONDS + (hour_UV + rng.random((num_users, most))) * HOUR_SECONDS
    start_UV[np.arange(most) >= visits_U[:, None]] = np.inf
    num_UV = 1 + rng.choice(3, (num_users, most), p=REQUESTS_PER_VISIT)
    gap_UVR = rng.uniform(*GAP_SECONDS, (num_users, most, 3))
    time_UVR = start_UV[..., None] + np.cumsum(gap_UVR, axis=2) - gap_UVR[..., :1]
    time_UVR[np.arange(3) >= num_UV[..., None]] = np.inf
    time_UR = np.sort(time_UVR.reshape(num_users, -1), axis=1)
    for column in range(1, time_UR.shape[1]):
        earliest_U = time_UR[:, column - 1] + GAP_SECONDS[0]
        time_UR[:, column] = np.maximum(time_UR[:, column], earliest_U)
    time_UR[time_UR >= log_seconds(config) - GAP_SECONDS[0]] = np.inf
    most_requests = min(config.items // (2 * config.slots), time_UR.shape[1])
    return time_UR[:, :most_requests]
