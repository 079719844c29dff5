"""Score the test period with the registered candidates and judge them against their rivals."""

from typing import Any

from assets.model_data import (
    PROMPT_TABLES,
    QUERY_TABLES,
    RANKER_TABLES,
    pinned,
    ranking_pairs,
    read_ranker_data,
)
from infra.platform import Platform


def judge_ranker(platform: Platform) -> dict[str, Any]:
    """Score the test split with the candidate ranker and compare it with its rivals."""
    from ml.ranking.evaluation import evaluate_ranker, ranker_verdict
    from ml.ranking.sequence_ranker.score import score
    from ml.ranking.sequence_ranker.training import batches_for, load_ranker

    data = read_ranker_data(platform, pinned(platform, RANKER_TABLES))
    model = load_ranker(platform.registry().folder("ranker", alias="candidate"))
    probabilities = score(model, batches_for(model, data.splits["test"]))
    result = evaluate_ranker(data.splits, probabilities, items=data.items, spec=data.spec)
    return {**result, **ranker_verdict(result)}


def judge_prompt_ranker(platform: Platform) -> dict[str, Any]:
    """Score sampled test impressions with the candidate prompt ranker, beside popularity."""
    from ml.generative.prompt_ranker.evaluation import evaluate_prompt_ranker
    from ml.generative.prompt_ranker.serving import load_scorer

    pairs = ranking_pairs(pinned(platform, PROMPT_TABLES), split="test")
    scorer = load_scorer(platform.registry().folder("prompt_ranker", alias="candidate"))
    probabilities = scorer.score({"member_prompt": pairs.members, "item_prompt": pairs.items})
    return evaluate_prompt_ranker(
        pairs.labels, pairs.users, probabilities, popularity=pairs.popularity
    )


def judge_retriever(platform: Platform) -> dict[str, Any]:
    """Rank the full catalogue for each test member with the candidate retriever and its rivals."""
    from assets.retrieval_data import read_queries, retriever_scores, rival_scores
    from ml.retrieval.comparison import compare_retrievers
    from ml.retrieval.evaluation import RetrievalQueries

    tables = pinned(platform, QUERY_TABLES)
    data = read_queries(platform, tables)
    scores = {
        "retriever": retriever_scores(platform, data),
        **rival_scores(platform, tables, data),
    }
    queries = RetrievalQueries(user=data.users, target=data.target, hidden=data.seen)
    return compare_retrievers(scores, queries, data.item_index.numpy())
