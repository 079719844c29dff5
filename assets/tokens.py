"""Token assets: item text, embeddings, semantic IDs, and the quantised prompts of both sides."""

from collections.abc import Iterator

import dagster as dg

from assets.outcomes import MEMORY_POOL, OWNERS, numeric_metadata, table_result
from infra.delta_arrow import arrow
from infra.platform import Platform
from infra.results import save_result
from pipelines.tables import (
    INTERACTIONS,
    ITEM_COUNTERS,
    ITEM_DAYS,
    ITEM_EMBEDDINGS,
    ITEM_PROMPTS,
    ITEM_TEXT,
    ITEMS,
    MEMBER_PROMPTS,
    PERCENTILE_CUTS,
    SEMANTIC_IDS,
    SEQUENCES,
)
from pipelines.version_tables import ITEM_VERSIONS, USER_VERSIONS

_SPARK, _TORCH = {"spark", "delta"}, {"torch", "delta"}


@dg.asset(
    group_name="tokens",
    kinds=_SPARK,
    owners=OWNERS,
    pool=MEMORY_POOL,
    deps=["item_versions", "items"],
)
def item_text(platform: Platform) -> Iterator[dg.MaterializeResult]:
    """The text that first described each item: the source's own, or its features in words."""
    from pipelines.item_text import build_item_text

    lakehouse = platform.lakehouse()
    versions, items = lakehouse.read(ITEM_VERSIONS), lakehouse.read(ITEMS)
    frame = build_item_text(versions, items=items, manifest=platform.manifest())
    yield table_result(ITEM_TEXT, lakehouse.overwrite(ITEM_TEXT, frame))


@dg.asset(group_name="tokens", kinds=_TORCH, owners=OWNERS, pool=MEMORY_POOL, deps=["item_text"])
def item_embeddings(platform: Platform) -> Iterator[dg.MaterializeResult]:
    """A unit-norm embedding of each item's text by the configured sentence encoder."""
    import pyarrow as pa

    from ml.tokenizers.text_encoder import EncoderConfig, load_encoder

    settings = platform.settings()
    texts = arrow(settings.lake, ITEM_TEXT).sort_by("item_index")
    encoder = load_encoder(EncoderConfig(name=settings.encoder) if settings.encoder else None)
    vectors = encoder.encode(texts["text"].to_pylist())
    flat = pa.array(vectors.reshape(-1))
    table = pa.table(
        {
            "item_id": texts["item_id"],
            "item_index": texts["item_index"],
            "encoder": pa.array([encoder.version] * len(texts)),
            "embedding": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]).cast(
                pa.list_(pa.float32())
            ),
        }
    )
    frame = platform.spark().createDataFrame(table, schema=ITEM_EMBEDDINGS.schema)
    commit = platform.lakehouse().overwrite(ITEM_EMBEDDINGS, frame)
    yield table_result(ITEM_EMBEDDINGS, commit, encoder=encoder.version, width=encoder.width)


@dg.asset(
    group_name="tokens",
    kinds=_TORCH,
    owners=OWNERS,
    pool=MEMORY_POOL,
    deps=["item_embeddings", "item_text", "item_versions", "sequences"],
)
def semantic_ids(platform: Platform) -> Iterator[dg.MaterializeResult]:
    """Codes of a residual k-means, fitted on the training period's items and then frozen."""
    import numpy as np
    import pyarrow as pa

    from assets.model_data import item_identities, pinned
    from ml.features import SequenceData
    from ml.tokenizers.id_report import describe_ids
    from ml.tokenizers.residual_kmeans import disambiguate, encode, fit_codebooks, save_codebooks

    settings = platform.settings()
    texts = arrow(settings.lake, ITEM_TEXT).sort_by("item_index")
    embedded = arrow(settings.lake, ITEM_EMBEDDINGS).sort_by("item_index")
    vectors = np.stack(embedded["embedding"].to_numpy(zero_copy_only=False)).astype(np.float32)
    fitted = texts["is_fitted"].to_numpy(zero_copy_only=False)
    codebooks = fit_codebooks(vectors[fitted], encoder=embedded["encoder"][0].as_py())
    version = save_codebooks(codebooks, settings.models / "semantic_ids")
    codes = encode(vectors, codebooks)
    table = pa.table(
        {
            "item_id": texts["item_id"],
            "item_index": texts["item_index"],
            "codes": pa.array(list(codes), type=pa.list_(pa.int32())),
            "disambiguator": pa.array(disambiguate(codes)),
            "codebook_version": pa.array([version] * len(texts)),
        }
    )
    frame = platform.spark().createDataFrame(table, schema=SEMANTIC_IDS.schema)
    commit = platform.lakehouse().overwrite(SEMANTIC_IDS, frame)
    tags = item_identities(pinned(platform, (ITEM_VERSIONS,)))
    result = describe_ids(
        codes,
        texts=texts["text"].to_pylist(),
        tags=[(names or [""])[0] for names in tags["tags"].to_pylist()],
        sequences=SequenceData.from_arrow(arrow(settings.lake, SEQUENCES)),
        positive_mask=platform.manifest().positive_mask,
    )
    save_result(settings, "semantic_ids", result)
    yield table_result(
        SEMANTIC_IDS, commit, codebook_version=version, **numeric_metadata(result["headline"])
    )


@dg.asset(
    group_name="tokens",
    kinds=_SPARK,
    owners=OWNERS,
    pool=MEMORY_POOL,
    deps=["item_versions", "item_days", "item_counters", "percentile_cuts"],
)
def item_prompts(platform: Platform) -> Iterator[dg.MaterializeResult]:
    """Each item as quantised text on each day it was shown, and as the test split begins."""
    from pipelines.item_prompts import ItemPromptInputs, build_item_prompts

    lakehouse = platform.lakehouse()
    inputs = ItemPromptInputs(
        versions=lakehouse.read(ITEM_VERSIONS),
        item_days=lakehouse.read(ITEM_DAYS),
        counters=lakehouse.read(ITEM_COUNTERS),
        cuts=lakehouse.read(PERCENTILE_CUTS),
    )
    frame = build_item_prompts(inputs, manifest=platform.manifest())
    yield table_result(ITEM_PROMPTS, lakehouse.overwrite(ITEM_PROMPTS, frame))


@dg.asset(
    group_name="tokens",
    kinds=_SPARK,
    owners=OWNERS,
    pool=MEMORY_POOL,
    deps=["item_versions", "user_versions", "interactions"],
)
def member_prompts(platform: Platform) -> Iterator[dg.MaterializeResult]:
    """Members as text as they stood just before sampled requests, with what they were shown."""
    from pipelines.member_prompts import MemberPromptInputs, build_member_prompts

    lakehouse = platform.lakehouse()
    inputs = MemberPromptInputs(
        interactions=lakehouse.read(INTERACTIONS),
        items=lakehouse.read(ITEM_VERSIONS),
        users=lakehouse.read(USER_VERSIONS),
        history=platform.source().history(),
    )
    frame = build_member_prompts(inputs, manifest=platform.manifest())
    yield table_result(MEMBER_PROMPTS, lakehouse.overwrite(MEMBER_PROMPTS, frame))
