"""The contracts of the frames that have one row per day; checks make them, nothing keeps them."""

from pipelines.contract import Table

_DATE, _LONG, _DOUBLE, _BOOL, _TIME = "date", "bigint", "double", "boolean", "timestamp"
_DOUBLES, _LONGS = "array<double>", "array<bigint>"

RAW_DAYS = Table(
    name="raw_events_days",
    group="events",
    row="one day of raw_events beside the trailing days before it",
    columns=(
        ("event_date", _DATE),
        ("raw_rows", _LONG),
        ("raw_users", _LONG),
        ("nameless_rows", _LONG),  # no event, user or item id
        ("newest_time", _TIME),  # of the rows whose time lies in the day
        ("is_accepted", _BOOL),  # somebody looked at the day and let it pass
        # The comparisons are null where there is too little to compare.
        ("row_ratio", _DOUBLE),  # to the trailing median, or to the day a week before if closer
        ("rows_per_user_ratio", _DOUBLE),
        ("nameless_rise", _DOUBLE),  # of the share of such rows
        ("quiet_seconds", _DOUBLE),  # from the newest event to the day's end
    ),
    key=("event_date",),
    required=("event_date", "raw_rows", "is_accepted"),
)

INTERACTION_DAYS = Table(
    name="interactions_days",
    group="tables",
    row="one day of interactions and rejected_events beside the trailing days before it",
    columns=(
        ("event_date", _DATE),
        ("raw_rows", _LONG),
        ("kept_rows", _LONG),  # raw rows merged into interactions
        ("rejected_rows", _LONG),
        ("repeated_rows", _LONG),  # rejected as duplicates
        ("unknown_rows", _LONG),  # rejected as their item is in no catalogue
        ("num_interactions", _LONG),
        ("num_users", _LONG),
        ("action_counts", _LONGS),  # aligned with SourceManifest.actions
        ("is_accepted", _BOOL),
        ("rejected_fraction", _DOUBLE),  # null for a day of few rows
        # The comparisons are null where there is too little to compare.
        ("rejected_rise", _DOUBLE),  # of the share of the day's raw rows
        ("repeated_rise", _DOUBLE),
        ("unknown_rise", _DOUBLE),
        ("rate_changes", _DOUBLES),  # relative to the trailing median rate of each action
        ("rate_deviations", _DOUBLES),  # the same in standard errors, a user counting once
    ),
    key=("event_date",),
    required=("event_date", "raw_rows", "kept_rows", "rejected_rows", "is_accepted"),
)

DAY_TABLES = (RAW_DAYS, INTERACTION_DAYS)
