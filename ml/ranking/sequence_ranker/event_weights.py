"""How much each event's loss weighs: recent events and rarely drawn positions more."""

from dataclasses import dataclass, replace

import numpy as np

from ml.features import NO_TIME, FloatArray, SequenceData

# Shapes: E events.
_DAY_SECONDS = 86_400
TimeSpan = tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class EventWeightConfig:
    """Choose the factors of an event's weight; with none of them all events weigh 1.

    Attributes:
        halves_over_sequence: Whether the weight halves from the newest event of a sequence to
            its oldest.
        half_life_days: Age, from the newest event of all, at which the weight halves; None for
            no such factor. Undated events have the weight of the oldest dated one.
        uses_propensity: Whether events weigh the inverse of their position's propensity; events
            without one weigh 1.
        largest_inverse_propensity: Where the inverse is cut off; its least is 1.
    """

    halves_over_sequence: bool = False
    half_life_days: float | None = None
    uses_propensity: bool = False
    largest_inverse_propensity: float = 10.0

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If a number is out of range.
        """
        if self.half_life_days is not None and self.half_life_days <= 0:
            raise ValueError(f"half_life_days must be positive, got {self.half_life_days}")
        if self.largest_inverse_propensity < 1:
            raise ValueError("largest_inverse_propensity must be at least 1")


def time_span(time: np.ndarray) -> TimeSpan | None:
    """Return the times of the oldest and the newest dated event, None if none is dated."""
    dated = time[time != NO_TIME]
    return (int(dated.min()), int(dated.max())) if len(dated) else None


def event_weights(
    data: SequenceData, config: EventWeightConfig, *, span: TimeSpan | None = None
) -> FloatArray:
    """Return the weight of each event, float32 [E].

    Args:
        data: Sequences.
        config: The factors.
        span: Times of the oldest and the newest dated event of all, if the sequences are a part
            of them; those of the sequences by default.

    Source: feed-sr 4.2 (position and time weights, IPW).
    """
    weights = np.ones(data.num_events)
    if config.halves_over_sequence:
        weights *= _place_weights(data)
    if config.half_life_days is not None:
        weights *= _age_weights(
            data.time, half_life_days=config.half_life_days, span=span or time_span(data.time)
        )
    if config.uses_propensity:
        inverse = 1 / np.where(np.isnan(data.propensity), 1.0, data.propensity)
        weights *= np.clip(inverse, 1.0, config.largest_inverse_propensity)
    return weights.astype(np.float32)


def _place_weights(data: SequenceData) -> FloatArray:
    """Return 0.5 ** ((S - 1 - i) / S) of event i of a sequence of S: about a half, up to 1."""
    lengths = data.lengths[data.event_row]
    place = np.arange(data.num_events) - data.offsets[:-1][data.event_row]
    return np.exp2(-(lengths - 1 - place) / lengths)


def _age_weights(time: np.ndarray, *, half_life_days: float, span: TimeSpan | None) -> FloatArray:
    """Return 0.5 ** (age / half-life); all 1 if nothing is dated."""
    if span is None:
        return np.ones(len(time))
    oldest, newest = span
    age_days = (newest - np.where(time != NO_TIME, time, oldest)) / _DAY_SECONDS
    return np.exp2(-age_days / half_life_days)


def only_new_targets(data: SequenceData, *, since: int) -> SequenceData:
    """Return the data with targets only from an instant on: the history stays as input.

    Args:
        data: Sequences.
        since: Seconds since 1970; events before it, and undated ones, are no targets.

    Source: feed-sr 4.2 (incremental training on new interactions).
    """
    return replace(data, is_target=data.is_target & (data.time >= since))
