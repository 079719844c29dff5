"""The contracts of all tables: one `Table` value each (contract.py).

Times are UTC instants (`timestamp`); days are days of the source's time zone. Identifiers are
strings. `item_index` and `user_index` are dense integers starting at 1; 0 means padding or
unknown. `action_bits` packs the source's ordered action names, bit 0 being the first name of
`SourceManifest.actions`.
"""

from pipelines.contract import Table
from pipelines.version_tables import ITEM_VERSIONS, USER_VERSIONS

# Spark SQL type names, so that reading the contracts needs no Spark.
_STRING, _INT, _LONG, _DOUBLE = "string", "int", "bigint", "double"
_TIME, _DATE, _BOOL = "timestamp", "date", "boolean"
_STRINGS, _INTS, _LONGS = "array<string>", "array<int>", "array<bigint>"
_DOUBLES, _FLOATS, _TIMES = "array<double>", "array<float>", "array<timestamp>"
_BOOLS, _FEATURES = "array<boolean>", "map<string,string>"

RAW_EVENTS = Table(
    name="raw_events",
    group="events",
    row="one row of the source's log, as it came, in canonical columns",
    columns=(
        ("event_id", _STRING),  # unique for the source's row; impression id where there is one
        ("kind", _STRING),  # "impression" (may carry its labels) or "action"
        ("impression_id", _STRING),  # joins actions to impressions; null if the source has none
        ("request_id", _STRING),  # impressions shown together; null if unknown
        ("user_id", _STRING),
        ("item_id", _STRING),
        ("event_time", _TIME),
        ("arrival_time", _TIME),  # when the log received the row; null if unknown
        ("event_date", _DATE),  # local day; a row whose time is unusable is filed under day one
        ("actions", _STRINGS),  # names of the positive actions that this row records
        ("dwell_ms", _LONG),
        ("duration_ms", _LONG),
        ("position", _INT),  # rank within the request, from 0
        ("surface", _STRING),
        ("propensity", _DOUBLE),  # probability that the logging policy put it at this position
        ("is_shuffled", _BOOL),  # part of a uniformly shuffled request
        ("true_probability", _DOUBLE),  # simulated feed only: P(primary action) as planted
        ("reachable_probability", _DOUBLE),  # simulated feed only: best from the visible history
        ("raw_text", _STRING),  # the source's own text of a row that could not be parsed
    ),
    key=("event_date", "event_id"),
    partition_by="event_date",
    required=("event_date",),
)

REJECTED_EVENTS = Table(
    name="rejected_events",
    group="events",
    row="one raw row that was not kept, with its payload and the first reason that applies",
    columns=(
        ("event_id", _STRING),
        ("event_date", _DATE),
        ("reason", _STRING),
        ("payload", _STRING),  # JSON of the whole raw row
    ),
    key=("event_date", "event_id", "reason", "payload"),
    partition_by="event_date",
    required=("event_date", "reason", "payload"),
)

INTERACTIONS = Table(
    name="interactions",
    group="tables",
    row="one labelled impression: what a user was shown and did",
    columns=(
        ("event_id", _STRING),
        ("request_id", _STRING),  # never null: the event's own id where the source has none
        ("user_id", _STRING),
        ("item_id", _STRING),
        ("event_time", _TIME),
        ("event_date", _DATE),
        ("arrival_date", _DATE),  # local day its last row arrived; the event's own if unknown
        ("local_hour", _INT),  # 0..23 in the source's zone
        ("local_weekday", _INT),  # 0 = Monday .. 6
        ("action_bits", _INT),
        ("dwell_ms", _LONG),
        ("dwell_bucket", _INT),  # 0 unknown, 1..8 rising
        ("duration_ms", _LONG),
        ("position", _INT),
        ("surface", _STRING),
        ("propensity", _DOUBLE),
        ("is_shuffled", _BOOL),
        ("num_source_rows", _INT),  # raw rows merged into this one (the impression + its actions)
        ("later_days", _INTS),  # of those filed under a later day, how many days later; else null
        ("true_probability", _DOUBLE),
        ("reachable_probability", _DOUBLE),
    ),
    key=("event_date", "event_id"),
    partition_by="event_date",
    required=(
        "event_id",
        "request_id",
        "user_id",
        "item_id",
        "event_time",
        "event_date",
        "arrival_date",
        "local_hour",
        "local_weekday",
        "action_bits",
    ),
    version=3,
)

ITEMS = Table(
    name="items",
    group="tables",
    row="one item of the catalogue, as it is at the end of the log",
    columns=(
        ("item_id", _STRING),
        ("item_index", _INT),
        ("created_time", _TIME),  # publication; else null
        ("first_seen_time", _TIME),  # first kept interaction; null if never shown
        ("author_id", _STRING),
        ("tags", _STRINGS),
        ("text", _STRING),
        ("duration_ms", _LONG),
        ("features", _FEATURES),
    ),
    key=("item_id",),
    required=("item_id", "item_index"),
)

USERS = Table(
    name="users",
    group="tables",
    row="one user, as they are at the end of the log",
    columns=(
        ("user_id", _STRING),
        ("user_index", _INT),
        ("text", _STRING),
        ("features", _FEATURES),
    ),
    key=("user_id",),
    required=("user_id", "user_index"),
)

ITEM_DAYS = Table(
    name="item_days",
    group="tables",
    row="what happened to one item on one day, of the interactions that arrived on one day",
    columns=(
        ("item_id", _STRING),
        ("event_date", _DATE),
        ("arrival_date", _DATE),  # never before the event's day; later for what came late
        ("impressions", _LONG),
        ("action_counts", _LONGS),  # aligned with SourceManifest.actions
        ("first_event_time", _TIME),
    ),
    key=("event_date", "item_id", "arrival_date"),
    partition_by="event_date",
    required=(
        "item_id",
        "event_date",
        "arrival_date",
        "impressions",
        "action_counts",
        "first_event_time",
    ),
)

ITEM_COUNTERS = Table(
    name="item_counters",
    group="tables",
    row="one item on one day on which it was shown: its totals over the days strictly before",
    columns=(
        ("item_id", _STRING),
        ("event_date", _DATE),
        ("impressions_before", _LONG),
        ("action_counts_before", _LONGS),  # aligned with SourceManifest.actions
        ("impressions_7d", _LONG),  # the seven days strictly before
        ("action_counts_7d", _LONGS),
        ("first_shown_date", _DATE),  # null if not shown by the end of the day
    ),
    key=("event_date", "item_id"),
    partition_by="event_date",
    required=("item_id", "event_date", "impressions_before", "action_counts_before"),
)

PERCENTILE_CUTS = Table(
    name="percentile_cuts",
    group="tables",
    row="one numeric feature in one content-age bucket: the histogram that turns it into 1..100",
    columns=(
        ("event_date", _DATE),  # the day the cuts are valid for
        ("feature", _STRING),
        ("age_bucket", _INT),
        ("bins", _INTS),  # ascending histogram bins that hold rows
        ("counts_below", _LONGS),  # rows of the window in bins below each of them
        ("num_rows", _LONG),
        ("version", _STRING),
    ),
    key=("event_date", "feature", "age_bucket"),
    partition_by="event_date",
    required=("event_date", "feature", "age_bucket", "bins", "counts_below", "num_rows", "version"),
)

SEQUENCE_EVENTS = Table(
    name="sequence_events",
    group="tables",
    row="one event as a sequence holds it, with what was known of its item that morning",
    columns=(
        ("event_id", _STRING),
        ("request_id", _STRING),
        ("user_id", _STRING),  # the rows of a file are sorted by it
        ("item_id", _STRING),
        ("event_time", _TIME),
        ("event_date", _DATE),
        ("arrival_date", _DATE),  # of one event filed under two days the later arrival counts
        ("action_bits", _INT),
        ("dwell_bucket", _INT),
        ("position", _INT),
        ("surface_index", _INT),  # 0 unknown, else index in SourceManifest.surfaces + 1
        ("propensity", _DOUBLE),  # known when the item is shown; null if the log does not say
        ("is_shuffled", _BOOL),
        ("local_hour", _INT),  # -1 where the source has no dates
        ("local_weekday", _INT),
        ("age_bucket", _INT),
        ("popularity_percentile", _INT),
        ("rate_percentile", _INT),
        ("item_impressions_7d", _LONG),
        ("item_positives_7d", _LONG),
        ("true_probability", _DOUBLE),
        ("reachable_probability", _DOUBLE),
    ),
    key=("event_date", "event_id"),
    partition_by="event_date",
    required=(
        "event_id",
        "request_id",
        "user_id",
        "item_id",
        "event_time",
        "event_date",
        "arrival_date",
        "action_bits",
        "local_hour",
        "local_weekday",
    ),
    version=2,
)

SEQUENCES = Table(
    name="sequences",
    group="tables",
    row="one user in one split (and chunk): context events, then the split's own, oldest first",
    columns=(
        ("user_id", _STRING),
        ("user_index", _INT),
        ("split", _STRING),  # train, validation or test
        ("chunk", _INT),  # 0 unless the split's events exceed max_events
        ("num_events", _INT),
        ("num_targets", _INT),
        ("event_id", _STRINGS),
        ("item_index", _INTS),
        ("event_time", _TIMES),  # null for undated history
        ("request_index", _INTS),  # rises with each request; equal for items shown together
        ("session_index", _INTS),  # 0 for undated history, else counted from 1 within the row
        ("action_bits", _INTS),
        ("dwell_bucket", _INTS),
        ("position", _INTS),  # 0 unknown, else rank + 1, clipped at 63
        ("surface_index", _INTS),  # 0 unknown, else index in SourceManifest.surfaces + 1
        ("propensity", _DOUBLES),  # that of raw_events; null if unknown, and for undated history
        ("is_shuffled", _BOOLS),  # null if unknown, and for undated history
        ("local_hour", _INTS),  # -1 for undated history
        ("local_weekday", _INTS),
        ("age_bucket", _INTS),  # content age at the event, 0 unknown
        ("popularity_percentile", _INTS),  # impressions, 0 unknown, else 1..100
        ("rate_percentile", _INTS),  # smoothed primary-action rate, 0 unknown, else 1..100
        ("item_impressions_7d", _LONGS),
        ("item_positives_7d", _LONGS),
        ("is_target", _BOOLS),  # an event of the split itself with mature labels
        ("true_probability", _DOUBLES),
        ("reachable_probability", _DOUBLES),
    ),
    key=("user_id", "split", "chunk"),
    required=("user_id", "split", "chunk", "num_events", "num_targets", "item_index"),
    version=3,
)

ITEM_TEXT = Table(
    name="item_text",
    group="tokens",
    row="one item with the text that describes it, never its id",
    columns=(
        ("item_id", _STRING),
        ("item_index", _INT),
        ("text", _STRING),
        ("origin", _STRING),  # "text", or "features" where the source has no text
        ("is_fitted", _BOOL),  # seen before the validation split: codebooks may be fitted on it
    ),
    key=("item_id",),
    required=("item_id", "item_index", "text", "origin", "is_fitted"),
)

ITEM_EMBEDDINGS = Table(
    name="item_embeddings",
    group="tokens",
    row="one item's text embedding",
    columns=(
        ("item_id", _STRING),
        ("item_index", _INT),
        ("encoder", _STRING),
        ("embedding", _FLOATS),  # unit norm
    ),
    key=("item_id",),
    required=("item_id", "item_index", "encoder", "embedding"),
)

SEMANTIC_IDS = Table(
    name="semantic_ids",
    group="tokens",
    row="one item's semantic ID",
    columns=(
        ("item_id", _STRING),
        ("item_index", _INT),
        ("codes", _INTS),  # one per level
        ("disambiguator", _INT),  # 0 for the first item of an ID, then 1, 2, ...
        ("codebook_version", _STRING),
    ),
    key=("item_id",),
    required=("item_id", "item_index", "codes", "disambiguator", "codebook_version"),
)

MEMBER_PROMPTS = Table(
    name="member_prompts",
    group="tokens",
    row="one sampled impression with the member's prompt as it stood just before its request",
    columns=(
        ("event_id", _STRING),
        ("user_id", _STRING),
        ("split", _STRING),
        ("event_date", _DATE),
        ("item_index", _INT),
        ("item_id", _STRING),
        ("is_positive", _BOOL),  # the primary action happened; retrieval takes any positive action
        ("for_retrieval", _BOOL),  # a positive chosen for the retriever
        ("for_ranking", _BOOL),  # sampled blind to the label, for the prompt ranker
        ("negative_item_indices", _INTS),  # shown to the member before, not engaged, newest first
        ("history_item_indices", _INTS),  # positively engaged before the request, oldest first
        ("prompt", _STRING),
    ),
    key=("event_id",),
    required=("event_id", "user_id", "split", "item_index", "is_positive", "prompt"),
)

ITEM_PROMPTS = Table(
    name="item_prompts",
    group="tokens",
    row="one item as text on one day: its words and quantised numbers",
    columns=(
        ("item_id", _STRING),
        ("item_index", _INT),
        ("event_date", _DATE),
        ("is_catalogue", _BOOL),  # part of the snapshot at the start of the test split
        ("prompt", _STRING),
    ),
    key=("event_date", "item_id"),
    required=("item_id", "item_index", "event_date", "prompt"),
)

ALL_TABLES = (
    RAW_EVENTS,
    REJECTED_EVENTS,
    INTERACTIONS,
    ITEM_VERSIONS,
    ITEMS,
    USER_VERSIONS,
    USERS,
    ITEM_DAYS,
    ITEM_COUNTERS,
    PERCENTILE_CUTS,
    SEQUENCE_EVENTS,
    SEQUENCES,
    ITEM_TEXT,
    ITEM_EMBEDDINGS,
    SEMANTIC_IDS,
    MEMBER_PROMPTS,
    ITEM_PROMPTS,
)
