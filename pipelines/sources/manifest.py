"""What a source can supply: its actions, range, splits, zone, and what it cannot feed."""

import json
from dataclasses import asdict, dataclass, field
from datetime import date, datetime

NO_IMPRESSIONS = "the log holds positives only: without impressions nothing says what was refused"
NEED_IMPRESSIONS = (
    "ranker", "ranking_evaluation", "prompt_ranker", "expert_plan", "optimized_prompt_ranker",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceManifest:
    """Describe one source as it was found; made once per data home and then frozen.

    Attributes:
        source: Name of the adapter.
        actions: Ordered action names; position is the bit in `action_bits`.
        primary_action: The action whose probability is the headline metric.
        positive_actions: Actions that count as engagement (history, retrieval targets).
        surfaces: Ordered surface names.
        start_date: First local day of the log.
        end_date: Last local day, inclusive.
        validation_start: Start of the validation split, UTC.
        test_start: Start of the test split, UTC.
        timezone: IANA zone of days and dayparts.
        partition_unit: "day" or "month": width of a Delta partition of an event table.
        has_impressions: False for a log of positives only.
        has_dates: False where the source knows order and gaps only. Its times are those of a
            made-up clock that its adapter documents: hours, weekdays and whatever was counted
            over the days before an event are then unknown in sequences and prompts.
        maturity_seconds: Labels younger than this at the log's end are left out.
        attribution_window_seconds: How long after its impression an action may come.
        actions_filed_apart: True where an action is a row of its own, filed under its own day,
            which may be later than its impression's. False where a row holds its own labels, or
            actions are filed under the days of their impressions.
        cannot_feed: Asset name to the reason why this source cannot feed it.
        columns: Column of the log to its type as found; empty where that is fixed by the source.
    """

    source: str
    actions: tuple[str, ...]
    primary_action: str
    positive_actions: tuple[str, ...]
    surfaces: tuple[str, ...]
    start_date: date
    end_date: date
    validation_start: datetime
    test_start: datetime
    timezone: str = "UTC"
    partition_unit: str = "day"
    has_impressions: bool = True
    has_dates: bool = True
    maturity_seconds: int = 0
    attribution_window_seconds: int = 86_400
    actions_filed_apart: bool = False
    cannot_feed: dict[str, str] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If actions or dates contradict each other.
        """
        if self.primary_action not in self.actions:
            raise ValueError(f"primary action {self.primary_action!r} is not in {self.actions}")
        if unknown := set(self.positive_actions) - set(self.actions):
            raise ValueError(f"positive actions {sorted(unknown)} are not in {self.actions}")
        if self.end_date < self.start_date:
            raise ValueError(f"end_date {self.end_date} is before start_date {self.start_date}")
        if not self.validation_start < self.test_start:
            raise ValueError("validation_start must be before test_start")
        if self.partition_unit not in ("day", "month"):
            raise ValueError(f"partition_unit must be day or month, not {self.partition_unit!r}")
        if len(self.actions) > 30:
            raise ValueError(f"at most 30 actions fit into action_bits, got {len(self.actions)}")

    @property
    def primary_bit(self) -> int:
        """Return the mask of the primary action in `action_bits`."""
        return 1 << self.actions.index(self.primary_action)

    @property
    def positive_mask(self) -> int:
        """Return the mask of all positive actions in `action_bits`."""
        return sum(1 << self.actions.index(name) for name in self.positive_actions)

    def to_json(self) -> str:
        """Return the manifest as JSON; dates and times in ISO 8601."""
        return json.dumps(asdict(self), default=lambda value: value.isoformat(), indent=1)

    @classmethod
    def from_json(cls, text: str) -> "SourceManifest":
        """Read a manifest written by `to_json`.

        Raises:
            ValueError: If a field is missing or unknown.
        """
        fields = json.loads(text)
        for name in ("start_date", "end_date"):
            fields[name] = date.fromisoformat(fields[name])
        for name in ("validation_start", "test_start"):
            fields[name] = datetime.fromisoformat(fields[name])
        for name in ("actions", "positive_actions", "surfaces"):
            fields[name] = tuple(fields[name])
        try:
            return cls(**fields)
        except TypeError as error:
            raise ValueError(f"not a source manifest: {error}") from error
