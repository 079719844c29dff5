"""TO-RoPE: ordinal rotary positions that also move on with the days between events."""

from torch import Tensor

from ml.layers.rotary import DEFAULT_BASE, Angles, pair_frequencies
from ml.layers.time_features import DAY_SECONDS, TimeOrigin

# Shapes: B sequences, S events, W head width (even).


class TimeRotary(TimeOrigin):
    """Turn by (position + rate x days) x frequency, on the frequencies of the ordinal rotation.

    Days count from the origin instead of from a sequence's oldest event: scores do not change,
    and candidates can be turned without their context. Undated events stand at the origin.

    Source: siren-rope 1.5, after arXiv 2510.20455; the base is the ordinal rotation's, which the
    paper's own comparison did not keep.
    """

    frequencies: Tensor

    def __init__(
        self, *, head_width: int, base: float = DEFAULT_BASE, positions_per_day: float = 0.01
    ) -> None:
        """Choose the frequencies.

        Args:
            head_width: Width of a head, even.
            base: Ratio of the slowest to the fastest period.
            positions_per_day: Positions that a day is worth (c of the source).

        Raises:
            ValueError: If the width is odd.
        """
        super().__init__()
        self._rate = positions_per_day
        frequency = pair_frequencies(head_width, base=base)
        self.register_buffer("frequencies", frequency, persistent=False)

    def angles(self, position_BS: Tensor, time_BS: Tensor, *, pooling: bool = False) -> Angles:
        """Return the cosine and sine of each event's angles, [B, 1, S, W / 2], float32.

        Args:
            position_BS: Ordinal positions, ascending.
            time_BS: Seconds since 1970, int64; `NO_TIME` where undated.
            pooling: Ignored: the final pooling turns as the stack does.

        Raises:
            ValueError: If the times are not whole numbers.
        """
        days = self.since_origin(time_BS).float() / DAY_SECONDS
        place = position_BS.float() + self._rate * days
        angle = place[:, None, :, None] * self.frequencies
        return angle.cos(), angle.sin()
