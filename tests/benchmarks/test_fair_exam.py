"""The fair exam in its short form: a small feed, held to what holds at any size."""

from typing import TYPE_CHECKING

from pipelines.sources.simulation.config import TERMS
from tests.benchmarks.fair_exam import hold_exam

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_no_rival_passes_the_reachable_reference_and_every_term_counts(
    spark: "SparkSession",
) -> None:
    figures = hold_exam(spark, {"users": "800", "days": "20"})
    truth, reachable = figures["ne_true"], figures["ne_reachable"]
    assert truth is not None and reachable is not None
    assert truth < reachable < 1
    for name in ("popularity", "logistic_regression"):
        closes = figures[f"{name}_closes"]
        assert closes is not None and closes < 0.75, name
    evidence = figures["regression_with_evidence_closes"]
    assert evidence is not None and evidence < 0.85
    for term in TERMS:
        cost = figures[f"cost_of_{term}"]
        assert cost is not None and cost > 0.03, term
