"""Member prompts: what was known of a member just before a request, as text.

A prompt may use the events whose time is strictly before the first event of the target's
request, and undated history, which lies before all of them. It never holds the target or any
outcome of its request. The profile is the one valid when the request began; an item of the
history has the words that were valid when the member engaged with it. The examples are chosen per
user and split:

- for ranking, by a hash of the event id among the split's targets, blind to every outcome;
- for retrieval, engaged targets: the newest of the train split, the first of the others, so that
  the prompt of an evaluated member is as old as its split.

Which examples are chosen may depend on later events of the same split; what a row says does not.
"""

from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.feature_text import features_text
from pipelines.item_text import described_in_words
from pipelines.prompts import (
    HISTORY,
    HISTORY_POST,
    MEMBER_MOMENT,
    MEMBER_PROFILE,
    MEMBER_TASK,
    clean_user_text,
    first_words,
    join_nonempty,
    own_tags,
    own_words,
)
from pipelines.sources.manifest import SourceManifest
from pipelines.splits import SPLITS
from pipelines.tables import MEMBER_PROMPTS
from pipelines.timelines import collect_timelines, moment_of, with_history
from pipelines.versions import VALID, as_of

_FIELDS = ("event_id", "event_date", "item_id", "item_index", "action_bits", "local_hour", "words")
_DAYPARTS = ("night", "morning", "afternoon", "evening")
_PROFILE_WORDS = 16
_PROFILE_FEATURES = 4
_HISTORY_TAGS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberPromptInputs:
    """Group the tables that member prompts are built from.

    Attributes:
        interactions: The interactions table, all days.
        items: The item_versions table.
        users: The user_versions table.
        history: Undated history (user_id, item_ids, action_bits, dwell_bucket), or None.
    """

    interactions: DataFrame
    items: DataFrame
    users: DataFrame
    history: DataFrame | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberPromptConfig:
    """Say how many examples a user gives and how much a prompt holds.

    Attributes:
        retrieval_per_user: Engaged events per user in train, validation and test.
        ranking_per_user: Impressions per user in train, validation and test.
        max_history: Engaged items in a prompt.
        history_words: Words of each of them.
        max_negatives: Shown, not engaged items listed per example.
    """

    retrieval_per_user: tuple[int, int, int] = (2, 1, 1)
    ranking_per_user: tuple[int, int, int] = (3, 1, 1)
    max_history: int = 8
    history_words: int = 6
    max_negatives: int = 4

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If a count is negative or a prompt would hold no word.
        """
        counts = (*self.retrieval_per_user, *self.ranking_per_user)
        if min(*counts, self.max_history, self.max_negatives) < 0:
            raise ValueError(f"counts of prompts must not be negative: {self}")
        if self.history_words < 1:
            raise ValueError(f"history_words must be at least 1, not {self.history_words}")


def build_member_prompts(
    inputs: MemberPromptInputs,
    *,
    manifest: SourceManifest,
    config: MemberPromptConfig | None = None,
) -> DataFrame:
    """Write the prompts of the chosen impressions.

    Args:
        inputs: Interactions, versions of items and users, and undated history.
        manifest: The source's manifest; `positive_actions` are engagement.
        config: Sizes; the defaults where None.

    Returns:
        A frame of the member_prompts table, one row per chosen impression.
    """
    config = config or MemberPromptConfig()
    mask = manifest.positive_mask
    events = with_history(inputs.interactions, inputs.history)
    worded = _with_words(events, inputs=inputs, mask=mask, num_words=config.history_words)
    timelines = collect_timelines(worded, fields=_FIELDS, manifest=manifest)
    chosen = timelines.select(
        "user_id",
        "events",
        _chosen_for_ranking(config.ranking_per_user).alias("ranking_ids"),
        _chosen_for_retrieval(config.retrieval_per_user, mask).alias("retrieval_ids"),
    )
    examples = F.transform(
        F.filter("events", lambda event: _is_in(event, "ranking_ids", "retrieval_ids")),
        lambda event: _example(event, mask, config),
    )
    rows = chosen.select(
        "user_id", "ranking_ids", "retrieval_ids", F.explode(examples).alias("example")
    ).withColumn("moment", F.col("example.target.request_moment"))
    profiles = inputs.users.select("user_id", *VALID, _profile().alias("profile"))
    return as_of(rows, profiles, key="user_id").select(*_contract_columns(manifest))


def _with_words(
    events: DataFrame, *, inputs: MemberPromptInputs, mask: int, num_words: int
) -> DataFrame:
    words = join_nonempty([own_tags(num_tags=_HISTORY_TAGS), own_words(num_words=num_words)])
    described = inputs.items.withColumns(described_in_words()).select(
        "item_id", *VALID, "item_index", words.alias("words")
    )
    known = as_of(events.withColumn("moment", moment_of()), described, key="item_id")
    return known.withColumns(
        {
            "item_index": F.coalesce("item_index", F.lit(0)),
            "words": F.when(F.col("action_bits").bitwiseAND(mask) != 0, F.col("words")),
        }
    )


def _is_engaged(event: Column, mask: int) -> Column:
    return event["action_bits"].bitwiseAND(mask) != 0


def _is_in(event: Column, *names: str) -> Column:
    ids = F.concat(*(F.col(name) for name in names))
    return event["event_id"].isNotNull() & F.array_contains(ids, event["event_id"])


def _targets(split: str) -> Column:
    return F.filter("events", lambda event: event["is_target"] & (event["split"] == split))


def _chosen_for_ranking(counts: tuple[int, int, int]) -> Column:
    def chosen(split: str, count: int) -> Column:
        hashed = F.transform(
            _targets(split),
            lambda event: F.struct(F.xxhash64(event["event_id"]), event["event_id"].alias("id")),
        )
        return F.slice(F.sort_array(hashed), 1, count).getField("id")

    return F.concat(*(chosen(*pair) for pair in zip(SPLITS, counts, strict=True)))


def _chosen_for_retrieval(counts: tuple[int, int, int], mask: int) -> Column:
    def chosen(split: str, count: int) -> Column:
        engaged = F.filter(_targets(split), lambda event: _is_engaged(event, mask))
        kept = _last(engaged, count) if split == "train" else F.slice(engaged, 1, count)
        return kept.getField("event_id")

    return F.concat(*(chosen(*pair) for pair in zip(SPLITS, counts, strict=True)))


def _last(array: Column, count: int) -> Column:
    return F.slice(array, F.greatest(F.size(array) - count, F.lit(0)) + 1, count)


def _example(target: Column, mask: int, config: MemberPromptConfig) -> Column:
    def is_earlier_engaged(event: Column) -> Column:
        return _is_engaged(event, mask) & (event["moment"] < target["request_moment"])

    def is_shown_unengaged(event: Column) -> Column:
        shown_by_then = (event["moment"] <= target["moment"]) & (
            event["request_moment"] <= target["request_moment"]
        )
        is_dated = event["split"].isNotNull()
        return (
            shown_by_then
            & is_dated
            & ~_is_engaged(event, mask)
            & (event["item_index"] != target["item_index"])
        )

    engaged = F.filter("events", is_earlier_engaged)
    unengaged = F.reverse(F.filter("events", is_shown_unengaged)).getField("item_index")
    negatives = F.array_except(
        unengaged, F.concat(engaged.getField("item_index"), F.array(F.lit(0)))
    )
    return F.struct(
        target.alias("target"),
        _last(engaged, config.max_history).alias("history"),
        F.slice(negatives, 1, config.max_negatives).alias("negatives"),
    )


def _profile() -> Column:
    features = features_text(F.col("features"), limit=_PROFILE_FEATURES)
    return first_words(
        join_nonempty([clean_user_text(F.col("text")), features]), num_words=_PROFILE_WORDS
    )


def _moment() -> list[Column]:
    hour = F.col("example.target.local_hour")
    dayparts = F.array(*(F.lit(name) for name in _DAYPARTS))
    return [
        F.lit(MEMBER_MOMENT),
        F.concat(F.lit("<ST_hour_"), hour.cast("string"), F.lit(">")),
        F.get(dayparts, F.floor(hour / 6).cast("int")),
    ]


def _prompt(*, has_dates: bool) -> Column:
    posts = F.transform(
        "example.history", lambda event: F.concat_ws(" ", F.lit(HISTORY_POST), event["words"])
    )
    return join_nonempty(
        [
            F.lit(MEMBER_TASK),
            F.when(F.col("profile") != "", F.concat_ws(" ", F.lit(MEMBER_PROFILE), "profile")),
            *(_moment() if has_dates else ()),
            F.lit(HISTORY),
            F.array_join(posts, " "),
        ]
    )


def _contract_columns(manifest: SourceManifest) -> list[Column]:
    target = F.col("example.target")
    computed = {
        "user_id": F.col("user_id"),
        "is_positive": target["action_bits"].bitwiseAND(manifest.primary_bit) != 0,
        "for_retrieval": _is_in(target, "retrieval_ids"),
        "for_ranking": _is_in(target, "ranking_ids"),
        "negative_item_indices": F.col("example.negatives"),
        "history_item_indices": F.col("example.history.item_index"),
        "prompt": _prompt(has_dates=manifest.has_dates),
    }
    return [
        (computed[name] if name in computed else target[name]).cast(kind).alias(name)
        for name, kind in MEMBER_PROMPTS.columns
    ]
