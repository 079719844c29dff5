"""Read the retriever's examples, and the test queries that it and its rivals are judged on."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from assets.model_data import read_item_prompts, read_member_prompts
from infra.pinned_tables import PinnedTables
from infra.platform import Platform
from pipelines.tables import SEQUENCES

if TYPE_CHECKING:
    from torch import Tensor

    from ml.retrieval.baselines import Engagements

_WINDOWS = {"popularity_1d": 1.0, "popularity_7d": 7.0, "popularity_all": None}


@dataclass(frozen=True, kw_only=True, slots=True)
class QueryData:
    """Hold the test queries and the catalogue as the test split begins.

    Attributes:
        prompts: Member prompts.
        users: User number of each query.
        target: Item index engaged with next.
        seen: Item indices engaged with before.
        item_index: Item index of each catalogue column, int64.
        catalogue: Catalogue prompts, one per column.
    """

    prompts: list[str]
    users: np.ndarray
    target: np.ndarray
    seen: list[list[int]]
    item_index: "Tensor"
    catalogue: list[str]


def read_queries(platform: Platform, tables: PinnedTables) -> QueryData:
    """Read one query per test member: the first engaged item of the test split.

    Args:
        platform: Where the manifest is.
        tables: `QUERY_TABLES`.
    """
    import torch

    rows = _for_retrieval(tables, split="test")
    prompts = read_item_prompts(tables)
    catalogue = prompts.filter(prompts["is_catalogue"])
    seen = _engaged_before_test(platform, tables)
    return QueryData(
        prompts=rows["prompt"].to_pylist(),
        users=_user_numbers(rows),
        target=rows["item_index"].to_numpy().astype(np.int64),
        seen=[
            sorted({*(history or []), *seen.get(user, ())})
            for user, history in zip(
                rows["user_id"].to_pylist(),
                rows["history_item_indices"].to_pylist(),
                strict=True,
            )
        ],
        item_index=torch.from_numpy(catalogue["item_index"].to_numpy().astype(np.int64)),
        catalogue=catalogue["prompt"].to_pylist(),
    )


def retriever_scores(platform: Platform, queries: QueryData) -> "Tensor":
    """Score the catalogue for each query with the candidate retriever and its index."""
    import torch

    from ml.retrieval.dual_encoder.serving import load_scorer
    from ml.retrieval.knn import load_index

    scorer = load_scorer(platform.registry().folder("retriever", alias="candidate"))
    index = load_index(platform.settings().models / "retrieval_index")
    if not torch.equal(index.item_index, queries.item_index):
        raise ValueError("retrieval_index holds another catalogue; materialise it again")
    return scorer.embed_members(queries.prompts) @ index.items.T


def rival_scores(
    platform: Platform, tables: PinnedTables, queries: QueryData
) -> dict[str, "Tensor"]:
    """Score the catalogue by popularity as the test split begins, and by item-kNN."""
    from ml.retrieval.baselines import item_knn_scores, item_similarity, popularity_scores

    past = _engagements(platform, tables)
    catalogue = queries.item_index.numpy()
    now = platform.manifest().test_start.timestamp()
    scores = {
        name: popularity_scores(past, catalogue, now_seconds=now, window_days=days).expand(
            len(queries.prompts), -1
        )
        for name, days in _WINDOWS.items()
    }
    similarity = item_similarity(past, num_items=int(catalogue.max(initial=0)))
    return {**scores, "item_knn": item_knn_scores(queries.seen, similarity, catalogue)}


def _for_retrieval(tables: PinnedTables, *, split: str) -> pa.Table:
    rows = read_member_prompts(tables)
    of_split = pc.equal(rows["split"], split)  # pyright: ignore[reportAttributeAccessIssue]
    return rows.filter(pc.and_(of_split, rows["for_retrieval"]))  # pyright: ignore[reportAttributeAccessIssue]


def _user_numbers(rows: pa.Table) -> np.ndarray:
    codes = pc.dictionary_encode(rows["user_id"]).combine_chunks().indices  # pyright: ignore[reportAttributeAccessIssue]
    return codes.to_numpy().astype(np.int64)


def _engagements(platform: Platform, tables: PinnedTables) -> "Engagements":
    """Return the positives before the test split; undated ones have no place in a window."""
    from ml.features import NO_TIME, SPLITS, SequenceData
    from ml.retrieval.baselines import Engagements

    data = SequenceData.from_arrow(tables.arrow(SEQUENCES))
    split = data.split[data.event_row]
    undated = (split == SPLITS.index("train")) & (data.time == NO_TIME)
    past = (data.is_target & (split < SPLITS.index("test"))) | undated
    positive = (data.actions & platform.manifest().positive_mask) > 0
    kept = past & positive & (data.item > 0)
    return Engagements(
        user=data.user[data.event_row][kept].astype(np.int64),
        item=data.item[kept].astype(np.int64),
        time_seconds=data.time[kept].astype(np.float64),
    )


def _engaged_before_test(platform: Platform, tables: PinnedTables) -> dict[str, set[int]]:
    """Return what each member engaged with before the test split, by user id."""
    past = _engagements(platform, tables)
    columns = ("user_id", "user_index")
    names = tables.arrow(SEQUENCES, columns=columns).group_by(list(columns)).aggregate([])
    name_of = dict(zip(names["user_index"].to_pylist(), names["user_id"].to_pylist(), strict=True))
    seen: dict[str, set[int]] = {}
    for user, item in zip(past.user.tolist(), past.item.tolist(), strict=True):
        seen.setdefault(name_of[user], set()).add(item)
    return seen
