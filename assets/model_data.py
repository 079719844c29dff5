"""Read what the models are trained and judged on from the lake, as the core's own types."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infra.pinned_tables import PinnedTables, pin
from infra.platform import Platform
from pipelines.contract import Table
from pipelines.tables import (
    ITEM_EMBEDDINGS,
    ITEM_PROMPTS,
    MEMBER_PROMPTS,
    SEMANTIC_IDS,
    SEQUENCES,
)
from pipelines.version_tables import ITEM_VERSIONS

if TYPE_CHECKING:
    from ml.features import FeatureSpec, SequenceData
    from ml.item_table import ItemTable
    from ml.row_chunks import RowsReference, StreamConfig

RANKER_TABLES = (SEQUENCES, ITEM_VERSIONS, SEMANTIC_IDS, ITEM_EMBEDDINGS)
PROMPT_TABLES = (MEMBER_PROMPTS, ITEM_PROMPTS)
QUERY_TABLES = (*PROMPT_TABLES, SEQUENCES)


@dataclass(frozen=True, kw_only=True, slots=True)
class RankerData:
    """Hold the sequences of each split, the item facts and the feature spec."""

    splits: dict[str, "SequenceData"]
    items: "ItemTable"
    spec: "FeatureSpec"


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptPairs:
    """Hold pairs of a member prompt and the item's prompt of that day.

    Attributes:
        members: Member prompts.
        items: Item prompts.
        labels: 1 where the primary action happened.
        users: Number of each row's user.
        popularity: Popularity percentile in the item's prompt of that day, 0 unknown.
    """

    members: list[str]
    items: list[str]
    labels: np.ndarray
    users: np.ndarray
    popularity: np.ndarray


def pinned(platform: Platform, tables: tuple[Table, ...]) -> PinnedTables:
    """Pin tables of the data home's lake; what is read of them from then on fits together."""
    return pin(platform.settings().lake, tables)


def read_ranker_data(platform: Platform, tables: PinnedTables) -> RankerData:
    """Read sequences, items and their IDs.

    Args:
        platform: Where the manifest is.
        tables: `RANKER_TABLES`.
    """
    from ml.features import SPLITS, SequenceData
    from ml.item_table import build_item_table, feature_spec

    manifest = platform.manifest()
    sequences = SequenceData.from_arrow(tables.arrow(SEQUENCES))
    items = build_item_table(
        item_identities(tables),
        semantic_ids=tables.arrow(SEMANTIC_IDS),
        embeddings=tables.arrow(ITEM_EMBEDDINGS),
    )
    spec = feature_spec(
        items,
        actions=manifest.actions,
        primary_action=manifest.primary_action,
        num_surfaces=len(manifest.surfaces),
    )
    splits = {split: sequences.in_split(split) for split in SPLITS}
    return RankerData(splits=splits, items=items, spec=spec)


def train_rows(tables: PinnedTables, stream: "StreamConfig") -> "RowsReference":
    """Return where the workers find the rows of the train split, as pinned."""
    return tables.rows(SEQUENCES, split="train", chunk_rows=stream.chunk_rows)


def item_identities(tables: PinnedTables) -> pa.Table:
    """Read number, tags and author of each item's identity: no later version changes them."""
    columns = ("item_index", "tags", "author_id", "is_identity")
    versions = tables.arrow(ITEM_VERSIONS, columns=columns)
    # Not by a filter of the reader: of a boolean, which has no file statistics, it finds no row.
    return versions.filter(versions["is_identity"]).sort_by("item_index")


def read_member_prompts(tables: PinnedTables) -> pa.Table:
    """Read the member prompts, ordered by event so that every read gives the same rows."""
    return tables.arrow(MEMBER_PROMPTS).sort_by("event_id")


def read_item_prompts(tables: PinnedTables) -> pa.Table:
    """Read the item prompts, ordered by item and day."""
    order = [("item_index", "ascending"), ("event_date", "ascending")]
    return tables.arrow(ITEM_PROMPTS).sort_by(order)


def prompt_columns(
    tables: PinnedTables, *, purpose: str
) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """Return the member prompts of one purpose, and all item prompts, as plain columns.

    Args:
        tables: `PROMPT_TABLES`.
        purpose: `for_retrieval` or `for_ranking`.
    """
    members = read_member_prompts(tables)
    return members.filter(members[purpose]).to_pydict(), read_item_prompts(tables).to_pydict()


def ranking_pairs(tables: PinnedTables, *, split: str) -> PromptPairs:
    """Pair the impressions chosen for ranking with their item's prompt of that day.

    The prompt is the item's newest of that day or before, else its oldest; an impression whose
    item has none is left out.
    """
    from ml.retrieval.dual_encoder.batches import ItemPrompts
    from ml.tokenizers.prompt_tokenizer import TokenRows

    members, items = read_member_prompts(tables), read_item_prompts(tables)
    of_split = pc.equal(members["split"], split)  # pyright: ignore[reportAttributeAccessIssue]
    chosen = members.filter(pc.and_(of_split, members["for_ranking"]))  # pyright: ignore[reportAttributeAccessIssue]
    untokenised = TokenRows(ids=np.zeros((0, 1), np.int32), lengths=np.zeros(0, np.int32))
    lookup = ItemPrompts(item=_indices(items), day=_days(items), tokens=untokenised)
    rows = lookup.rows(_indices(chosen), _days(chosen))
    kept = np.flatnonzero(rows >= 0)
    chosen, prompts = chosen.take(pa.array(kept)), items["prompt"].take(pa.array(rows[kept]))
    users = pc.dictionary_encode(chosen["user_id"]).combine_chunks().indices  # pyright: ignore[reportAttributeAccessIssue]
    return PromptPairs(
        members=chosen["prompt"].to_pylist(),
        items=prompts.to_pylist(),
        labels=chosen["is_positive"].to_numpy(zero_copy_only=False).astype(np.int64),
        users=users.to_numpy().astype(np.int64),
        popularity=_popularity(prompts),
    )


def _indices(table: pa.Table) -> np.ndarray:
    return table["item_index"].to_numpy().astype(np.int64)


def _days(table: pa.Table) -> np.ndarray:
    days = pc.cast(table["event_date"], pa.date32()).cast(pa.int32())
    return days.to_numpy().astype(np.int64)


def _popularity(prompts: pa.ChunkedArray) -> np.ndarray:
    """Read the popularity percentile back from item prompts; 0 where there is none."""
    from ml.tokenizers.special_tokens import ITEM_POPULARITY, PERCENTILE_OPEN

    pattern = rf"{ITEM_POPULARITY}\s*{PERCENTILE_OPEN}\s*<ST_(?P<number>\d+)>"
    found = pc.extract_regex(prompts, pattern)  # pyright: ignore[reportAttributeAccessIssue]
    numbers = pc.struct_field(found, "number").cast(pa.int32())  # pyright: ignore[reportAttributeAccessIssue]
    return numbers.fill_null(0).to_numpy(zero_copy_only=False).astype(np.float64)
