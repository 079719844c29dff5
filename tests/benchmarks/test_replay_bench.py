"""The replay bench in its short form: one position for all, and the truth is the ceiling."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import logit

from ml.analysis.replay import LoggedRequests
from ml.features import SequenceData
from ml.ranking.sequence_ranker.model import SequenceRanker
from ml.ranking.sequence_ranker.recipes import attn_mvp
from ml.ranking.sequence_ranker.score import score
from ml.ranking.sequence_ranker.training import batches_for, build_model
from pipelines.sources.simulation.config import FeedConfig
from tests.benchmarks.feed_exam import feed_exam
from tests.benchmarks.replay import Outcome, earned, mean_with_half_width, measure, pooled
from tests.benchmarks.replay_rankers import model_scores, sequence_recipes


def _untrained() -> tuple[SequenceRanker, SequenceData]:
    exam = feed_exam(FeedConfig(users=24, days=10), validation_day=5, test_day=6)
    model = build_model(attn_mvp(), spec=exam.spec, items=exam.items, train=exam.splits["train"])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model, exam.splits["test"]


def test_candidates_are_scored_at_one_position_and_histories_keep_theirs() -> None:
    model, test = _untrained()
    scores = model_scores(model, test)
    logged = logit(score(model, batches_for(model, test))[:, 0].astype(np.float64))
    is_first = test.position[test.is_target] == 1
    np.testing.assert_allclose(scores[is_first], logged[is_first], atol=2e-4)
    assert np.abs(scores[~is_first] - logged[~is_first]).max() > 0.01
    # a last request turned round scores as before; earlier positions are part of the history
    last = test.request == np.repeat(test.request[test.offsets[1:] - 1], test.lengths)
    turned = np.where(last, 7 - test.position, test.position).astype(np.int32)
    again = model_scores(model, replace(test, position=turned))
    np.testing.assert_allclose(again, scores, atol=2e-4)
    earlier = np.where(last, test.position, 7 - test.position).astype(np.int32)
    assert np.abs(model_scores(model, replace(test, position=earlier)) - scores).max() > 0.001


def test_earned_is_the_mean_truth_of_the_best_candidates_of_each_seed() -> None:
    log = LoggedRequests(
        user=np.array([1, 1, 1, 1, 2, 2]),
        request=np.array([0, 0, 1, 1, 0, 0]),
        position=np.array([0, 1, 0, 1, 0, 1]),
        contributed=np.zeros(6, bool),
        is_shuffled=np.ones(6, bool),
        propensity=np.full(6, 0.5),
    )
    truth = np.array([0.1, 0.4, 0.3, 0.2, 0.5, 0.9])
    scores = {"worst": -truth, "truth": truth}
    one = Outcome(log=log, truth=truth, scores=scores)
    assert earned(one, "truth") == pytest.approx((0.4 + 0.3 + 0.9) / 3)
    assert earned(one, "worst") == pytest.approx((0.1 + 0.2 + 0.5) / 3)
    both = pooled([one, one])
    assert len(np.unique(both.log.user)) == 4
    assert earned(both, "truth") == pytest.approx((0.4 + 0.3 + 0.9) / 3)
    # of 0.2 and 0.4: deviation 0.14142, error 0.1, t with one degree of freedom 12.706
    assert mean_with_half_width(np.array([0.2, 0.4])) == pytest.approx((0.3, 1.2706), abs=1e-4)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_short_form_has_every_ranker_and_none_beats_the_truth(
    capsys: pytest.CaptureFixture[str],
) -> None:
    figures = measure(users=64, seeds=1, epochs=1)
    names = ["truth", "random", "logistic_regression", *sequence_recipes()]
    names += ["thompson_0", "thompson_1", "thompson_3"]
    earns = {name: figures[f"{name}_earns"] for name in names}
    truth = earns["truth"]
    assert truth is not None
    assert all(value is not None and value < truth for n, value in earns.items() if n != "truth")
    assert earns["thompson_0"] == pytest.approx(earns["attn_mvp"], abs=1e-9)
    assert earns["thompson_3"] != earns["attn_mvp"]
    shown = capsys.readouterr().out.splitlines()[2:]
    assert sorted(line.split()[0] for line in shown) == sorted(names)
