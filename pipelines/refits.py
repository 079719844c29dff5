"""Explicit re-fits of percentile cuts: which days may count what arrived after they had begun.

Cuts of a day are made of what had arrived when the day began. A re-fit is the only exception: an
entry of the arrival log that says, for a range of days, before which day a row must have arrived.
The same log of arrivals and re-fits gives the same cuts, whenever and in however many runs.
"""

from dataclasses import dataclass
from datetime import date, datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class CutRefit:
    """Describe one re-fit.

    Attributes:
        first_day: First day whose cuts are fitted again.
        last_day: Last day, inclusive.
        arrived_before: Local day before which a row must have arrived to be counted.
        requested_at: When the re-fit was asked for.
        why: The reason given.
    """

    first_day: date
    last_day: date
    arrived_before: date
    requested_at: datetime
    why: str

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If the range is empty, or nothing more could have arrived.
        """
        if self.last_day < self.first_day:
            raise ValueError(f"last_day {self.last_day} is before first_day {self.first_day}")
        if self.arrived_before <= self.last_day:
            raise ValueError(
                f"arrived_before {self.arrived_before} must be after last_day {self.last_day}: "
                "what arrived before a day began is in its cuts already"
            )
