"""What a model is told of an instant: the time of day, the day of the week, the long-range offset.

Seconds since 1970 do not fit into float32 (at 1.7e9 its steps are 128 s), so phases are taken of
whole numbers and offsets from an origin, before anything becomes a float.
Times are UTC; a user's own clock is not known here.
"""

from math import pi

import torch
from torch import Tensor, nn

from ml.features import NO_TIME

# Shapes: B sequences, S events, D width.
DAY_SECONDS = 86_400
WEEK_SECONDS = 7 * DAY_SECONDS
YEAR_SECONDS = 365 * DAY_SECONDS
NUM_TIME_FEATURES = 5


class TimeOrigin(nn.Module):
    """Hold the instant from which offsets count; it is fitted and travels with the weights."""

    origin: Tensor

    def __init__(self) -> None:
        """Start at 1970, until `set_origin` is called."""
        super().__init__()
        self.register_buffer("origin", torch.zeros((), dtype=torch.int64))

    def set_origin(self, seconds: int) -> None:
        """Count offsets from an instant of the training data.

        Args:
            seconds: Seconds since 1970, for example of the first dated event.

        Raises:
            ValueError: If it is the mark of an undated event.
        """
        if seconds == NO_TIME:
            raise ValueError("the origin of time must be a dated event's; the data has none")
        self.origin.fill_(seconds)

    def since_origin(self, time_BS: Tensor) -> Tensor:
        """Return whole seconds since the origin, 0 for undated events.

        Raises:
            ValueError: If the times are not whole numbers.
        """
        if time_BS.is_floating_point():
            raise ValueError(f"times are whole seconds, int64; got {time_BS.dtype}, which rounds")
        return (time_BS.long() - self.origin).masked_fill(time_BS == NO_TIME, 0)


def set_time_origin(model: nn.Module, seconds: int) -> None:
    """Set the origin of every part of a model that counts time from one.

    Args:
        model: Any module; without such parts nothing happens.
        seconds: Seconds since 1970, from the training data.

    Raises:
        ValueError: If it is the mark of an undated event and a part needs an origin.
    """
    for module in model.modules():
        if isinstance(module, TimeOrigin):
            module.set_origin(seconds)


class TimeFeatures(TimeOrigin):
    """Compute the inputs of SIREN-RoPE from timestamps."""

    def forward(self, time_BS: Tensor) -> Tensor:
        """Return cosine and sine of the day and of the week, and years since the origin.

        Args:
            time_BS: Seconds since 1970, int64; `NO_TIME` where undated.

        Returns:
            float32 [B, S, 5]; undated events have zeros.

        Raises:
            ValueError: If the times are not whole numbers.

        Source: siren-rope 1.2, the five inputs of the paper.
        """
        years = self.since_origin(time_BS).float() / YEAR_SECONDS
        day = (time_BS % DAY_SECONDS).float() * (2 * pi / DAY_SECONDS)
        week = (time_BS % WEEK_SECONDS).float() * (2 * pi / WEEK_SECONDS)
        features = torch.stack([day.cos(), day.sin(), week.cos(), week.sin(), years], dim=-1)
        return features.masked_fill((time_BS == NO_TIME)[..., None], 0.0)


class TimeEmbedding(nn.Module):
    """The rival of time in the rotation: the same features added to the items' embeddings."""

    def __init__(self, width: int) -> None:
        """Create the projection, without bias, so that undated events add nothing.

        Args:
            width: Width of the item embeddings.
        """
        super().__init__()
        self.time = TimeFeatures()
        self.project = nn.Linear(NUM_TIME_FEATURES, width, bias=False)

    def forward(self, time_BS: Tensor) -> Tensor:
        """Return what to add to the items, [B, S, D]; zeros for undated events.

        Source: siren-rope 1.5, "temporal in embedding".
        """
        return self.project(self.time(time_BS))
