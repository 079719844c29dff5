"""Gather the results of a data home into the report's page."""

from datetime import UTC, datetime
from pathlib import Path

from infra.lake_sizes import table_sizes
from infra.leaderboard_section import leaderboard_section
from infra.report_page import Card, Page, Section, number, render
from infra.report_sections import (
    experts_section,
    prompt_ranker_section,
    ranking_section,
    retrieval_section,
    semantic_id_section,
    tables_section,
    training_section,
)
from infra.results import load_result
from infra.settings import Settings
from pipelines.sources.manifest import SourceManifest
from pipelines.tables import ALL_TABLES

_TRAININGS = ("ranker", "retriever", "prompt_ranker")
_RESULTS = (
    "ranking_evaluation",
    "ranking_leaderboard",
    "retrieval_evaluation",
    "optimized_prompt_ranker",
    "semantic_ids",
    *_TRAININGS,
)


def report_page(settings: Settings, manifest: SourceManifest) -> Page:
    """Return the page of what the data home holds; parts that a source cannot feed say so.

    Args:
        settings: Where the results are.
        manifest: The source's description.
    """
    return Page(
        title=f"ranklake on {manifest.source}",
        subtitle=_subtitle(manifest),
        cards=_cards(settings),
        sections=_sections(settings, manifest),
        footer=f"Written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC. {_skipped(manifest)}",
    )


def write_report(settings: Settings, manifest: SourceManifest) -> Path:
    """Write the page whole or not at all; return its path."""
    path = settings.reports / "report.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_text(render(report_page(settings, manifest)), encoding="utf-8")
    draft.replace(path)
    return path


def _sections(settings: Settings, manifest: SourceManifest) -> tuple[Section, ...]:
    """Return the sections of what was run, or cannot be; of what was not run there is none."""
    results = {name: load_result(settings, name) for name in _RESULTS}
    ranking = results["ranking_evaluation"] or {}
    trainings = {name: found for name in _TRAININGS if (found := results[name])}
    sections = (
        ("ranking_evaluation", ranking_section(ranking.get("ranker"))),
        ("ranking_leaderboard", leaderboard_section(results["ranking_leaderboard"])),
        ("retrieval_evaluation", retrieval_section(results["retrieval_evaluation"])),
        ("ranking_evaluation", prompt_ranker_section(ranking.get("prompt_ranker"))),
        *((name, training_section(trainings)) for name in list(trainings)[:1]),
        ("optimized_prompt_ranker", experts_section(results["optimized_prompt_ranker"])),
        ("semantic_ids", semantic_id_section(results["semantic_ids"])),
    )
    known = {*manifest.cannot_feed, *(name for name, found in results.items() if found)}
    shown = (section for name, section in sections if name in known)
    return (*shown, tables_section(table_sizes(settings.lake, ALL_TABLES)))


def _subtitle(manifest: SourceManifest) -> str:
    if not manifest.has_dates:
        return (
            "The source has no dates: each user's last event is the test, the one before it the "
            "validation. Times are those of a made-up clock."
        )
    return (
        f"{manifest.start_date} to {manifest.end_date}, days in {manifest.timezone}. "
        f"Validation from {manifest.validation_start:%Y-%m-%d %H:%M}, test from "
        f"{manifest.test_start:%Y-%m-%d %H:%M} UTC. Split strictly by time."
    )


def _cards(settings: Settings) -> tuple[Card, ...]:
    ranking = (load_result(settings, "ranking_evaluation") or {}).get("headline", {})
    retrieval = (load_result(settings, "retrieval_evaluation") or {}).get("headline", {})
    experts = (load_result(settings, "optimized_prompt_ranker") or {}).get("headline", {})
    ids = (load_result(settings, "semantic_ids") or {}).get("headline", {})
    candidates = (
        ("Ranker NE", ranking, "ne_ranker", "ne_logistic_regression", "logistic regression"),
        (
            "Of the reachable distance",
            ranking,
            "closed_fraction_ranker",
            "closed_fraction_logistic_regression",
            "logistic regression",
        ),
        ("Recall@10", retrieval, "recall_at_10_retriever", *_best_retrieval_rival(retrieval)),
        ("Prompt ranker AUC", ranking, "prompt_ranker_auc", "popularity_auc", "popularity"),
        ("Expert imbalance", experts, "lis_after", "lis_before", "before"),
        ("Unique semantic IDs", ids, "semantic_id_uniqueness", "", ""),
    )
    return tuple(
        Card(
            label=label,
            value=number(found[name], 3),
            note=f"{text} {number(found[rival], 3)}" if rival in found else "",
        )
        for label, found, name, rival, text in candidates
        if found.get(name) is not None
    )


def _best_retrieval_rival(found: dict[str, float]) -> tuple[str, str]:
    """Return the key of the strongest rival's recall, and its name in words."""
    prefix = "recall_at_10_"
    rivals = [name for name in found if not name.startswith(f"{prefix}retriever")]
    best = max(rivals, key=lambda name: found[name], default="")
    return best, f"best rival, {best.removeprefix(prefix).replace('_', ' ')}:"


def _skipped(manifest: SourceManifest) -> str:
    if not manifest.cannot_feed:
        return "The source feeds every asset."
    reasons = "; ".join(f"{name}: {why}" for name, why in manifest.cannot_feed.items())
    return f"Skipped: {reasons}."
