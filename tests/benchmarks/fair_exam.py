"""Is the simulated feed a fair exam? What the rivals close, and what each term is worth.

D is the distance from the base rate to the reachable reference, 1 - NE(reachable), on the test
period. A rival closes (1 - NE) / D of it. The regression of the goal knows rates and counts; the
one with evidence also compares a past with what users on average do, and stands beside it without
a goal. A term's cost is what the reachable reference loses without it, after its slope and
intercept are fitted again on the training period, over D.

Run: python -m tests.benchmarks.fair_exam [knob=value ...]
"""

import sys
import tempfile
from functools import partial

import numpy as np
from pyspark.sql import SparkSession
from sklearn.linear_model import LogisticRegression

from infra.settings import Settings
from infra.spark import spark_session
from ml.metrics import normalized_entropy
from ml.ranking.logistic_regression import BLOCKS, LogisticRegressionConfig, fit_and_score
from ml.ranking.popularity import popularity_baseline
from pipelines.sources.simulated_feed import describe, references
from pipelines.sources.simulation.calendar import local_midnight
from pipelines.sources.simulation.catalogue import build_catalogue
from pipelines.sources.simulation.config import TERMS, FeedConfig
from tests.benchmarks.exam_sequences import (
    feature_spec,
    item_table,
    split_masks,
    split_sequences,
)
from tests.benchmarks.result_line import Goal, print_result

GOALS = (
    Goal(figure="popularity_closes", op="<=", limit=0.35),
    Goal(figure="logistic_regression_closes", op="<=", limit=0.75),
    *(Goal(figure=f"cost_of_{term}", op=">=", limit=0.03) for term in TERMS),
)


def hold_exam(spark: SparkSession, options: dict[str, str]) -> dict[str, float | None]:
    """Return the exam's figures for a feed.

    Args:
        spark: The session that generates the feed.
        options: Knobs of the feed by name, as text.
    """
    config = FeedConfig.from_options(options)
    frame = references(spark, options).toPandas().sort_values(["user", "request", "position"])
    columns = {name: frame[name].to_numpy() for name in frame.columns}
    manifest = describe(spark, None, options)
    origin = local_midnight(config, 0)
    starts = (
        (manifest.validation_start - origin).total_seconds(),
        (manifest.test_start - origin).total_seconds(),
    )
    masks = split_masks(columns, starts=starts)
    labels = columns["clicked"].astype(np.int64)
    test = masks["test"]
    reachable = normalized_entropy(labels[test], columns["reachable_probability"][test])
    distance = 1.0 - reachable
    figures: dict[str, float | None] = {
        "impressions": float(len(labels)),
        "test_impressions": float(test.sum()),
        "click_rate": float(labels.mean()),
        "ne_true": normalized_entropy(labels[test], columns["true_probability"][test]),
        "ne_reachable": reachable,
        "distance": distance,
    }
    for term in TERMS:
        without = _recalibrated(columns[f"without_{term}"], labels, train=masks["train"])
        loss = normalized_entropy(labels[test], without[test])
        figures[f"cost_of_{term}"] = (loss - reachable) / distance
    for name, loss in _rivals(columns, config=config, starts=starts).items():
        figures[f"ne_{name}"] = loss
        figures[f"{name}_closes"] = (1.0 - loss) / distance
    return figures


def _recalibrated(
    probabilities: np.ndarray, labels: np.ndarray, *, train: np.ndarray
) -> np.ndarray:
    """Fit slope and intercept of the log-odds on the training period; return all probabilities."""
    logits = np.log(probabilities / (1.0 - probabilities))[:, None]
    model = LogisticRegression(C=1e6).fit(logits[train], labels[train])
    return model.predict_proba(logits)[:, 1]


def _rivals(
    columns: dict[str, np.ndarray], *, config: FeedConfig, starts: tuple[float, float]
) -> dict[str, float]:
    """Return NE on the test period of popularity with position and of both regressions."""
    catalogue = build_catalogue(config)
    splits = split_sequences(columns, config=config, starts=starts)
    items, spec = item_table(catalogue), feature_spec(catalogue)
    test = splits["test"]
    labels = test.labels(0)[test.is_target]
    counts = LogisticRegressionConfig(blocks=tuple(name for name in BLOCKS if name != "evidence"))
    rivals = {
        "popularity": popularity_baseline,
        "logistic_regression": partial(fit_and_score, config=counts),
        "regression_with_evidence": fit_and_score,
    }
    return {
        name: normalized_entropy(
            labels, fit(splits, items=items, spec=spec, action="click").probabilities
        )
        for name, fit in rivals.items()
    }


def main() -> int:
    """Hold the exam on the default feed, or with knobs from the command line."""
    options = dict(argument.split("=", 1) for argument in sys.argv[1:])
    with tempfile.TemporaryDirectory() as home:
        spark = spark_session(Settings.from_env({"RANKLAKE_HOME": home}))
        figures = hold_exam(spark, options)
        spark.stop()
    return 0 if print_result("fair-exam", figures, goals=GOALS) else 1


if __name__ == "__main__":
    sys.exit(main())
