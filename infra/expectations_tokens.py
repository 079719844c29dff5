"""Expectations of the texts, embeddings, semantic IDs and prompts."""

from infra.rules import Rule, between, holds, items_between, one_of, one_value, unique
from pipelines.sources.manifest import SourceManifest

_LARGEST_INDEX = 2**31 - 1
_MIN_LEVELS, _MAX_LEVELS = 3, 4
_NORM_SLACK = 1e-3


def item_text_rules(manifest: SourceManifest) -> tuple[Rule, ...]:
    """Return the rules of item_text."""
    return (
        *_item_index(),
        one_of("origin", ("text", "features")),
        _not_blank("text"),
    )


def embedding_rules(manifest: SourceManifest) -> tuple[Rule, ...]:
    """Return the rules of item_embeddings."""
    return (
        *_item_index(),
        holds(
            "embedding_unit_norm",
            "abs(sqrt(aggregate(embedding, 0D, (s, v) -> s + CAST(v AS DOUBLE) * v)) - 1) "
            f"<= {_NORM_SLACK}",
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
        _not_blank("prompt"),
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
    return (between("item_index", 1, None), _not_blank("prompt"))


def _item_index() -> tuple[Rule, ...]:
    return (between("item_index", 1, None), unique("item_index", name="item_index_unique"))


def _not_blank(column: str) -> Rule:
    spaces = " \\t\\r\\n"
    return holds(
        f"{column}_not_blank",
        f"trim(BOTH '{spaces}' FROM {column}) <> ''",
        f"{column} is not blank",
    )
