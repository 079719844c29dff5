"""Expectations of the texts, embeddings, semantic IDs and prompts."""

from infra.rules import (
    Rule,
    between,
    holds,
    items_between,
    not_blank,
    one_of,
    one_value,
    share_between,
    unique,
)
from pipelines.sources.manifest import SourceManifest
from pipelines.thresholds import thresholds

_LARGEST_INDEX = 2**31 - 1
_MIN_LEVELS, _MAX_LEVELS = 3, 4
_SOME = 1e-9  # a share that any row passes


def item_text_rules(manifest: SourceManifest) -> tuple[Rule, ...]:
    """Return the rules of item_text."""
    return (
        *_item_index(),
        one_of("origin", ("text", "features")),
        not_blank("text"),
        share_between("fitted_share", "is_fitted", _SOME, 1.0, text="share of fitted items"),
    )


def embedding_rules(manifest: SourceManifest) -> tuple[Rule, ...]:
    """Return the rules of item_embeddings."""
    slack = thresholds(manifest.source).tables.embedding_norm_slack
    return (
        *_item_index(),
        holds(
            "embedding_unit_norm",
            "abs(sqrt(aggregate(embedding, 0D, (s, v) -> s + CAST(v AS DOUBLE) * v)) - 1) "
            f"<= {slack}",
            "every embedding is finite and of unit length",
        ),
        one_value(
            "embedding",
            name="embedding_width",
            derived="size(embedding)",
            text="all embeddings have the same width",
        ),
        one_value("encoder", name="one_encoder", text="all embeddings come from one encoder"),
    )


def semantic_id_rules(manifest: SourceManifest) -> tuple[Rule, ...]:
    """Return the rules of semantic_ids."""
    return (
        *_item_index(),
        holds(
            "codes_levels",
            f"size(codes) BETWEEN {_MIN_LEVELS} AND {_MAX_LEVELS}",
            f"a semantic ID has {_MIN_LEVELS} to {_MAX_LEVELS} codes",
        ),
        one_value(
            "codes",
            name="same_levels",
            derived="size(codes)",
            text="all semantic IDs have the same number of codes",
        ),
        items_between("codes", 0, _LARGEST_INDEX),
        between("disambiguator", 0, None),
        unique("codes", "disambiguator", name="id_unique"),
        one_value(
            "codebook_version",
            name="one_codebook",
            text="all IDs come from one version of codebooks",
        ),
    )


def member_prompt_rules(manifest: SourceManifest) -> tuple[Rule, ...]:
    """Return the rules of member_prompts."""
    from pipelines.splits import SPLITS

    return (
        between("item_index", 1, None),
        one_of("split", SPLITS),
        between("event_date", manifest.start_date, manifest.end_date),
        not_blank("prompt"),
        holds("item_id_kept", "item_id IS NOT NULL", "every row names its item"),
        holds(
            "chosen_for_something",
            "for_retrieval OR for_ranking",
            "every row was chosen for the retriever or for the prompt ranker",
        ),
        holds(
            "negatives_exclude_target",
            "NOT array_contains(negative_item_indices, item_index)",
            "the item itself is not among its negatives",
        ),
        *(
            items_between(column, 0, _LARGEST_INDEX)
            for column in ("negative_item_indices", "history_item_indices")
        ),
    )


def item_prompt_rules(manifest: SourceManifest) -> tuple[Rule, ...]:
    """Return the rules of item_prompts."""
    return (
        between("item_index", 1, None),
        not_blank("prompt"),
        share_between("catalogue_share", "is_catalogue", _SOME, 1.0, text="share of the catalogue"),
    )


def _item_index() -> tuple[Rule, ...]:
    return (between("item_index", 1, None), unique("item_index", name="item_index_unique"))
