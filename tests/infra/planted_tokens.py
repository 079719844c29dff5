"""Violations planted in texts, embeddings, semantic IDs and prompts."""

from datetime import date

from pipelines.contract import Table
from pipelines.tables import (
    ITEM_EMBEDDINGS,
    ITEM_PROMPTS,
    ITEM_TEXT,
    MEMBER_PROMPTS,
    SEMANTIC_IDS,
)
from tests.infra.planted import Planted, empty, missing, twice


def _per_item(table: Table, *, when_empty: tuple[str, ...] = ()) -> list[Planted]:
    """Plant what every table with one row per item is held to."""
    return [
        Planted(table=table, name="rows_exist", change=empty, implied=when_empty),
        *missing(table),
        Planted(table=table, name="key_unique", change={"item_id": "i2"}),
        Planted(table=table, name="item_index_in_range", change={"item_index": 0}),
        Planted(table=table, name="item_index_unique", change={"item_index": 2}),
    ]


TOKENS = [
    *_per_item(ITEM_TEXT, when_empty=("fitted_share",)),
    Planted(table=ITEM_TEXT, name="origin_known", change={"origin": "title"}),
    Planted(table=ITEM_TEXT, name="text_not_blank", change={"text": "  "}),
    Planted(
        table=ITEM_TEXT,
        name="fitted_share",
        change=lambda rows: [row | {"is_fitted": False} for row in rows],
    ),
    *_per_item(ITEM_EMBEDDINGS),
    Planted(table=ITEM_EMBEDDINGS, name="embedding_unit_norm", change={"embedding": [0.6, 0.9]}),
    Planted(table=ITEM_EMBEDDINGS, name="embedding_width", change={"embedding": [0.6, 0.8, 0.0]}),
    Planted(table=ITEM_EMBEDDINGS, name="one_encoder", change={"encoder": "large"}),
    *_per_item(SEMANTIC_IDS),
    Planted(
        table=SEMANTIC_IDS,
        name="codes_levels",
        change=lambda rows: [row | {"codes": [4, 0]} for row in rows],
    ),
    Planted(table=SEMANTIC_IDS, name="same_levels", change={"codes": [4, 0, 2, 1]}),
    Planted(table=SEMANTIC_IDS, name="codes_items_in_range", change={"codes": [4, -1, 2]}),
    Planted(table=SEMANTIC_IDS, name="disambiguator_in_range", change={"disambiguator": -1}),
    Planted(table=SEMANTIC_IDS, name="id_unique", change={"disambiguator": 1}),
    Planted(table=SEMANTIC_IDS, name="one_codebook", change={"codebook_version": "v2"}),
    Planted(table=MEMBER_PROMPTS, name="rows_exist", change=empty),
    *missing(MEMBER_PROMPTS),
    Planted(table=MEMBER_PROMPTS, name="key_unique", change=twice),
    Planted(table=MEMBER_PROMPTS, name="item_index_in_range", change={"item_index": 0}),
    Planted(table=MEMBER_PROMPTS, name="split_known", change={"split": "holdout"}),
    Planted(
        table=MEMBER_PROMPTS, name="event_date_in_range", change={"event_date": date(2027, 1, 1)}
    ),
    Planted(table=MEMBER_PROMPTS, name="prompt_not_blank", change={"prompt": ""}),
    Planted(table=MEMBER_PROMPTS, name="item_id_kept", change={"item_id": None}),
    Planted(
        table=MEMBER_PROMPTS,
        name="chosen_for_something",
        change={"for_retrieval": False, "for_ranking": False},
    ),
    Planted(
        table=MEMBER_PROMPTS,
        name="negatives_exclude_target",
        change={"negative_item_indices": [2, 1]},
    ),
    Planted(
        table=MEMBER_PROMPTS,
        name="negative_item_indices_items_in_range",
        change={"negative_item_indices": [None, 2]},
    ),
    Planted(
        table=MEMBER_PROMPTS,
        name="history_item_indices_items_in_range",
        change={"history_item_indices": [-3]},
    ),
    Planted(table=ITEM_PROMPTS, name="rows_exist", change=empty, implied=("catalogue_share",)),
    *missing(ITEM_PROMPTS),
    Planted(table=ITEM_PROMPTS, name="key_unique", change=twice),
    Planted(table=ITEM_PROMPTS, name="item_index_in_range", change={"item_index": 0}),
    Planted(table=ITEM_PROMPTS, name="prompt_not_blank", change={"prompt": "\t "}),
    Planted(
        table=ITEM_PROMPTS,
        name="catalogue_share",
        change=lambda rows: [row | {"is_catalogue": False} for row in rows],
    ),
]
