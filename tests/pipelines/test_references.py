"""Ids without a row in the table that must hold them are counted, each once."""

from pyspark.sql import SparkSession

from pipelines.missing_references import count_missing
from pipelines.references import REFERENCES, Reference
from pipelines.tables import ITEMS, MEMBER_PROMPTS, SEQUENCES, USERS
from tests.pipelines.sequence_rows import frame


def test_missing_ids_are_counted_once_and_unknown_ones_are_none(spark: SparkSession) -> None:
    references = (
        Reference(table=SEQUENCES, column="item_index", target=ITEMS),
        Reference(table=MEMBER_PROMPTS, column="user_id", target=USERS),
    )
    rows = {
        SEQUENCES: [{"item_index": [1, 0, 7]}, {"item_index": [7, 2, 8]}, {"item_index": []}],
        ITEMS: [{"item_id": "a", "item_index": 1}, {"item_id": "b", "item_index": 2}],
        MEMBER_PROMPTS: [{"user_id": "u"}, {"user_id": "u"}, {"user_id": None}],
        USERS: [{"user_id": "u"}, {"user_id": "v"}],
    }
    frames = {table.name: frame(spark, table, some) for table, some in rows.items()}
    found = count_missing(frames, references=references)
    assert found.schema.simpleString() == REFERENCES.schema.simpleString()
    assert sorted(map(tuple, found.collect())) == [
        ("member_prompts.user_id in users", 1, 0),
        ("sequences.item_index in items", 4, 2),
    ]


def test_empty_tables_refer_to_nothing(spark: SparkSession) -> None:
    references = (Reference(table=MEMBER_PROMPTS, column="user_id", target=USERS),)
    frames = {table.name: frame(spark, table, []) for table in (MEMBER_PROMPTS, USERS)}
    found = count_missing(frames, references=references)
    assert [tuple(row) for row in found.collect()] == [("member_prompts.user_id in users", 0, 0)]
