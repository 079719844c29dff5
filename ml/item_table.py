"""Static facts of each item as integer arrays, row 0 being the unknown item."""

import zlib
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa

from ml.features import FeatureSpec, FloatArray, IntArray


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ItemTable:
    """Hold the item side of the features; 0 means none or unknown everywhere.

    Attributes:
        tags: Tag numbers, int32 [N + 1, T].
        codes: Semantic ID, code + 1 per level, int32 [N + 1, L].
        author: Author hash bucket, int32 [N + 1].
        embedding: Text embedding, float32 [N + 1, E]; E = 0 without one.
        tag_names: The tag of number 1, 2, ...; frozen with the model.
    """

    tags: IntArray
    codes: IntArray
    author: IntArray
    embedding: FloatArray
    tag_names: np.ndarray

    def __post_init__(self) -> None:
        """Check that all arrays describe the same items.

        Raises:
            ValueError: If they do not.
        """
        sizes = {len(self.tags), len(self.codes), len(self.author), len(self.embedding)}
        if len(sizes) != 1:
            raise ValueError(f"item arrays have different lengths: {sorted(sizes)}")

    @property
    def num_items(self) -> int:
        """Return the number of items without the unknown one."""
        return len(self.author) - 1

    def save(self, path: Path) -> None:
        """Write the arrays into an uncompressed .npz file."""
        np.savez(path, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> "ItemTable":
        """Read a file written by `save`."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**{name: arrays[name] for name in arrays.files})


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemTableLimits:
    """Bound the vocabularies of an item table.

    Attributes:
        max_tags: Most frequent tags that get a number.
        tags_per_item: Tags kept per item.
        author_buckets: Hash buckets of authors, 0 excluded.
    """

    max_tags: int = 2048
    tags_per_item: int = 4
    author_buckets: int = 4096


def build_item_table(
    items: pa.Table,
    *,
    semantic_ids: pa.Table | None = None,
    embeddings: pa.Table | None = None,
    tag_names: np.ndarray | None = None,
    limits: ItemTableLimits | None = None,
) -> ItemTable:
    """Turn the items, semantic_ids and item_embeddings tables into aligned arrays.

    Args:
        items: Columns item_index, tags and author_id.
        semantic_ids: Columns item_index and codes; without them there are no codes.
        embeddings: Columns item_index and embedding; without them there is none.
        tag_names: Vocabulary of an earlier table, so that numbers keep their meaning.
        limits: Sizes of the vocabularies.
    """
    limits = limits or ItemTableLimits()
    index = items["item_index"].to_numpy()
    num_rows = int(index.max(initial=0)) + 1
    if tag_names is None:
        tag_names = _frequent_tags(items["tags"], limit=limits.max_tags)
    author = np.zeros(num_rows, np.int32)
    author[index] = _hash_strings(items["author_id"], buckets=limits.author_buckets)
    return ItemTable(
        tags=_tag_matrix(items, tag_names, (num_rows, limits.tags_per_item)),
        codes=_rows_at(semantic_ids, "codes", num_rows, np.int32, shift=1),
        author=author,
        embedding=_rows_at(embeddings, "embedding", num_rows, np.float32, shift=0),
        tag_names=tag_names,
    )


def feature_spec(
    items: ItemTable,
    *,
    actions: tuple[str, ...],
    primary_action: str,
    num_surfaces: int,
    limits: ItemTableLimits | None = None,
) -> FeatureSpec:
    """Return the vocabulary sizes that fit an item table.

    Args:
        items: The table the model will hold.
        actions: Ordered action names.
        primary_action: The action of the headline metric.
        num_surfaces: Number of named surfaces; the unknown one is added.
        limits: The limits that the table was built with.
    """
    return FeatureSpec(
        num_items=items.num_items,
        actions=actions,
        primary_action=primary_action,
        num_tags=len(items.tag_names) + 1,
        num_authors=(limits or ItemTableLimits()).author_buckets + 1,
        code_sizes=tuple(int(size) + 1 for size in items.codes.max(axis=0, initial=0)),
        num_surfaces=num_surfaces + 1,
    )


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array."""
    return pa.concat_arrays(column.chunks) if column.num_chunks != 1 else column.chunk(0)


def _frequent_tags(tags: pa.ChunkedArray, *, limit: int) -> np.ndarray:
    """Return the most frequent tags, ties in alphabetical order."""
    counts = _one_array(tags).flatten().drop_null().value_counts()
    names = np.array(counts.field("values").to_pylist(), dtype=str)
    order = np.lexsort((names, -counts.field("counts").to_numpy()))
    return names[order[:limit]]


def _tag_matrix(items: pa.Table, names: np.ndarray, shape: tuple[int, int]) -> IntArray:
    """Return the first known tags of each item as numbers, left-aligned."""
    matrix = np.zeros(shape, np.int32)
    lists = _one_array(items["tags"])
    parents = lists.value_parent_indices().to_numpy()
    values = np.array(lists.flatten().to_pylist(), dtype=object)
    order = np.argsort(names)
    if not len(values) or not len(names):
        return matrix
    texts = np.array(["" if value is None else value for value in values], dtype=str)
    found = np.minimum(np.searchsorted(names, texts, sorter=order), len(names) - 1)
    number = np.where(names[order[found]] == texts, order[found] + 1, 0)
    parents, number = parents[number > 0], number[number > 0]
    starts = np.searchsorted(parents, parents)
    slot = np.arange(len(parents)) - starts
    keep = slot < shape[1]
    rows = items["item_index"].to_numpy()[parents[keep]]
    matrix[rows, slot[keep]] = number[keep]
    return matrix


def _hash_strings(values: pa.ChunkedArray, *, buckets: int) -> IntArray:
    """Return 1 + CRC-32 modulo the buckets of each string, 0 for null."""
    encoded = _one_array(values.cast(pa.string())).dictionary_encode()
    names = encoded.dictionary.to_pylist()
    hashed = np.array([zlib.crc32(name.encode()) % buckets + 1 for name in names], np.int32)
    indices = encoded.indices.fill_null(len(names)).to_numpy(zero_copy_only=False)
    return np.append(hashed, np.int32(0)).astype(np.int32)[indices]


def _rows_at(
    table: pa.Table | None, column: str, num_rows: int, dtype: type, *, shift: int
) -> np.ndarray:
    """Place a list column's equally long rows at their item index, others zero."""
    if table is None or not len(table):
        return np.zeros((num_rows, 0), dtype)
    index = table["item_index"].to_numpy()
    values = _one_array(table[column]).flatten().to_numpy().reshape(len(index), -1)
    known = index < num_rows
    matrix = np.zeros((num_rows, values.shape[1]), dtype)
    matrix[index[known]] = values[known] + shift
    return matrix
