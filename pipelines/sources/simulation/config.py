"""The knobs of the simulated feed, one per mechanism, each with its size in its unit."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date
from zoneinfo import ZoneInfo

_RANGES = {
    "users": (1, 10_000_000_000),
    "days": (3, 365),
    "items": (64, 90_000),
    "slots": (2, 40),
    "sessions_per_user": (1, 1_000),
    "taste_fraction": (0.01, 0.49),
    "causal_requests": (1, 1_000),
    "transition_requests": (1, 1_000),
    "popularity_half_life_days": (0.1, 100_000),
    "transition_pairs": (0, 90_000),
    "transition_insertion": (0, 1),
    "shuffled_fraction": (0, 1),
    "kept_order_fraction": (0, 0.99),
    "malformed_fraction": (0, 1),
    "duplicate_fraction": (0, 1),
    "invalid_fraction": (0, 1),
    "late_fraction": (0, 1),
}
TERMS = ("taste", "daypart", "causal", "popularity", "position", "transition")
PRESETS = ("dog_cat", "daypart")
NUM_PLANTED_TOPICS = 4
# The knobs that a preset leaves; it fixes all others.
_KNOBS_OF_PRESETS = (
    "preset",
    "users",
    "days",
    "seed",
    "start_date",
    "timezone",
    "items",
    "malformed_fraction",
    "duplicate_fraction",
    "invalid_fraction",
    "late_fraction",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class FeedConfig:
    """Fix everything that the simulated feed is made from. Sizes are in log-odds of a click.

    Attributes:
        users: Number of users.
        days: Length of the log in days.
        seed: Seed of the catalogue and, with a block's number, of every block of users.
        start_date: First local day of the log, ISO 8601.
        timezone: IANA zone of days and dayparts.
        items: Size of the catalogue.
        slots: Impressions per request.
        sessions_per_user: Mean number of visits per user; each has one to three requests.
        base_logit: Log-odds of a click when every term is zero.
        taste_scale: A user likes a topic by plus or minus this, or is neutral.
        taste_fraction: Share of topics liked; as many are disliked.
        daypart_scale: A topic gains this in two of the four dayparts and loses it in the others.
        causal_boost: Gain of topic B while a click on its cause topic A is remembered.
        causal_requests: How many of a user's requests a click is remembered as a cause.
        popularity_scale: Standard deviation of an item's appeal when new.
        popularity_half_life_days: Age at which half of an item's appeal is left.
        position_scale: Loss per rank down the request, centred over its slots.
        transition_boost: Gain of a successor item while a click on its predecessor is remembered.
        transition_requests: How many requests a click is remembered for its successor.
        transition_pairs: Number of memorised predecessor-successor pairs.
        transition_insertion: Probability that the feed shows the successor of a recent item.
        policy_taste: Weight of the posterior mean taste in the logging policy's choice.
        policy_popularity: Weight of the appeal in the logging policy's choice.
        shuffled_fraction: Share of requests whose slots were shuffled uniformly.
        kept_order_fraction: Probability that another request keeps its order, not rotated.
        malformed_fraction: Unparsable rows per true row.
        duplicate_fraction: Exact copies per true row, and as many rows of a used key.
        invalid_fraction: Rows of each invalid kind (orphan, unknown item, impossible time, ...)
            per true row.
        late_fraction: Share of true rows that arrive days late.
        preset: A toy of `planted.py` in place of the terms, one of `PRESETS`; empty for none.
    """

    users: int = 8_000
    days: int = 30
    seed: int = 7
    start_date: str = "2025-03-03"
    timezone: str = "UTC"
    items: int = 1_500
    slots: int = 6
    sessions_per_user: float = 6.0
    base_logit: float = -2.8
    taste_scale: float = 2.0
    taste_fraction: float = 0.25
    daypart_scale: float = 0.75
    causal_boost: float = 1.2
    causal_requests: int = 2
    popularity_scale: float = 1.1
    popularity_half_life_days: float = 20.0
    position_scale: float = 0.3
    transition_boost: float = 2.5
    transition_requests: int = 1
    transition_pairs: int = 300
    transition_insertion: float = 0.5
    policy_taste: float = 1.0
    policy_popularity: float = 1.2
    shuffled_fraction: float = 0.1
    kept_order_fraction: float = 0.7
    malformed_fraction: float = 0.002
    duplicate_fraction: float = 0.004
    invalid_fraction: float = 0.001
    late_fraction: float = 0.01
    preset: str = ""

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If a knob is out of its range, or given although a preset fixes it.
        """
        _check_calendar(self.start_date, self.timezone)
        for name, (low, high) in _RANGES.items():
            if not low <= getattr(self, name) <= high:
                value = getattr(self, name)
                raise ValueError(f"option {name} must lie in {low}..{high}, got {value}")
        if self.kept_order_fraction < 1 / self.slots:
            raise ValueError("option kept_order_fraction must be at least 1 / slots")
        if self.preset:
            self._check_preset()
        elif self.transition_pairs > self.items // 4:
            raise ValueError("option transition_pairs must be at most a quarter of items")

    def _check_preset(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"option preset must be one of {PRESETS}, got {self.preset!r}")
        for knob in fields(self):
            is_fixed = knob.name not in _KNOBS_OF_PRESETS
            if is_fixed and getattr(self, knob.name) != knob.default:
                raise ValueError(
                    f"option {knob.name} says nothing with preset {self.preset}; leave one out"
                )

    @classmethod
    def from_options(cls, options: Mapping[str, str]) -> "FeedConfig":
        """Read the knobs from text options; names that are left out keep their defaults.

        Args:
            options: Knob name to value as text, as given on a command line.

        Raises:
            ValueError: If a name is unknown or a value is not a number of the knob's type.
        """
        kinds = {item.name: type(item.default) for item in fields(cls)}
        if unknown := sorted(set(options) - set(kinds)):
            raise ValueError(f"unknown option {unknown[0]!r}; the feed has {sorted(kinds)}")
        values = {}
        for name, text in options.items():
            try:
                values[name] = kinds[name](text)
            except ValueError as error:
                kind = kinds[name].__name__
                raise ValueError(f"option {name} must be of type {kind}, got {text!r}") from error
        return cls(**values)


def _check_calendar(start_date: str, timezone: str) -> None:
    try:
        date.fromisoformat(start_date)
    except ValueError as error:
        raise ValueError(f"option start_date must be a day like 2025-03-03: {error}") from error
    try:
        ZoneInfo(timezone)
    except (KeyError, ValueError) as error:
        raise ValueError(f"option timezone must be an IANA zone, got {timezone!r}") from error
