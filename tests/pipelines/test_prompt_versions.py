"""Prompts where attributes change: the words that were valid then, and none from later."""

from pyspark.sql import DataFrame, Row, SparkSession

from pipelines.item_counters import count_items
from pipelines.item_days import sum_item_days
from pipelines.item_prompts import ItemPromptInputs, build_item_prompts
from pipelines.member_prompts import MemberPromptConfig, MemberPromptInputs, build_member_prompts
from pipelines.tables import INTERACTIONS, PERCENTILE_CUTS
from pipelines.version_tables import ITEM_VERSIONS, USER_VERSIONS
from tests.pipelines.sequence_rows import CLICK, MANIFEST, at, frame, impression


def _item_prompts(spark: SparkSession, log: DataFrame, versions: DataFrame) -> list[Row]:
    item_days = sum_item_days(log, manifest=MANIFEST)
    days = {"start": MANIFEST.start_date, "end": MANIFEST.end_date}
    inputs = ItemPromptInputs(
        item_days=item_days,
        versions=versions,
        counters=count_items(item_days, manifest=MANIFEST, **days),
        cuts=frame(spark, PERCENTILE_CUTS, []),
    )
    return build_item_prompts(inputs, manifest=MANIFEST).collect()


def test_prompts_hold_the_words_of_their_time(spark: SparkSession) -> None:
    items = [
        {"item_index": 1, "item_id": "soup", "valid_to": at(5), "text": "old soup"},
        {"item_index": 1, "item_id": "soup", "valid_from": at(5), "text": "new soup"},
        {"item_index": 2, "item_id": "news", "valid_to": at(6, 10)},
        {"item_index": 2, "item_id": "news", "valid_from": at(6, 10), "text": "just in"},
    ]
    users = [
        {"user_id": "U", "valid_to": at(6, 11), "text": "tea"},
        {"user_id": "U", "valid_from": at(6, 11), "text": "coffee"},
    ]
    events = [
        impression("e1", "U", "soup", at(4), action_bits=CLICK),
        impression("e2", "U", "soup", at(5), action_bits=CLICK),
        impression("e3", "U", "news", at(6, 9), action_bits=CLICK),
        impression("e4", "U", "news", at(6, 11), action_bits=CLICK),
        impression("e5", "U", "news", at(7, 9)),
        impression("s1", "U", "late", at(21, 20)),
    ]
    items += [
        {"item_index": 3, "item_id": "late", "valid_to": at(21, 8)},
        {"item_index": 3, "item_id": "late", "valid_from": at(21, 8), "text": "of that day"},
    ]
    versions = frame(spark, ITEM_VERSIONS, items)
    interactions = frame(spark, INTERACTIONS, events)
    members = MemberPromptInputs(
        interactions=interactions, items=versions, users=frame(spark, USER_VERSIONS, users)
    )
    config = MemberPromptConfig(ranking_per_user=(9, 9, 9))
    written = build_member_prompts(members, manifest=MANIFEST, config=config).collect()
    prompts = {row.event_id: row.prompt for row in written}
    assert prompts["e4"].startswith("<ST_M0> <ST_M1> coffee")
    assert prompts["e3"].startswith("<ST_M0> <ST_M1> tea")
    posts = prompts["e5"].split("<ST_history>")[1].split(" <ST_history_post> ")[1:]
    assert posts == ["old soup", "new soup", "no description", "just in"]

    rows = _item_prompts(spark, interactions, versions)
    words = {
        (row.item_id, row.event_date.day): row.prompt.split("<ST_P2> ")[1]
        for row in rows
        if not row.is_catalogue
    }
    # What changes during a day is of the next day; news was shown before it was described.
    assert words == {
        ("soup", 4): "old soup",
        ("soup", 5): "old soup",
        ("news", 6): "no description",
        ("news", 7): "just in",
    }
    catalogue = {row.item_id: row.prompt.split("<ST_P2> ")[1] for row in rows if row.is_catalogue}
    assert catalogue == {"soup": "new soup", "news": "just in", "late": "no description"}


def test_an_item_published_on_its_first_day_has_its_words_there(spark: SparkSession) -> None:
    first = {"item_index": 1, "item_id": "news"}
    versions = [
        {**first, "valid_to": at(6, 8)},
        {**first, "valid_from": at(6, 8), "valid_to": at(6, 10), "text": "just in"},
        {**first, "valid_from": at(6, 10), "text": "corrected"},
    ]
    log = frame(spark, INTERACTIONS, [impression("e", "U", "news", at(6, 12))])
    rows = _item_prompts(spark, log, frame(spark, ITEM_VERSIONS, versions))
    assert [row.prompt.split("<ST_P2> ")[1] for row in rows if not row.is_catalogue] == ["just in"]
