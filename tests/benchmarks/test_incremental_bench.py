"""The incremental bench in its short form: no day ahead of its time, every way judged alike."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.sources.simulation.calendar import DAY_SECONDS
from pipelines.sources.simulation.config import FeedConfig
from tests.benchmarks.feed_exam import feed_exam
from tests.benchmarks.incremental import measure
from tests.benchmarks.incremental_course import TRAIN_DAYS, WAYS, Course, before
from tests.ml.sequence_examples import changed, sequences


def test_before_cuts_sequences_and_leaves_out_who_came_later() -> None:
    data = changed(sequences([3, 2, 4]), time=np.array([1, 5, 9, 6, 7, 2, 3, 4, 5]))
    cut = before(data, 5)
    assert cut.time.tolist() == [1, 2, 3, 4]
    assert (cut.offsets.tolist(), cut.user.tolist()) == ([0, 1, 4], [1, 3])
    assert cut.item.tolist() == data.item[[0, 5, 6, 7]].tolist()


def test_a_training_sees_no_day_after_its_own(tmp_path: Path) -> None:
    exam = feed_exam(FeedConfig(users=24), validation_day=TRAIN_DAYS, test_day=27)
    course = Course(exam, seed=0, epochs=1, folder=tmp_path)
    end = 20 * DAY_SECONDS
    seen = course.inputs(end).train
    assert seen.time.max() < end
    whole = exam.splits["train"]
    assert seen.num_events == int((whole.time < end).sum())
    assert whole.time[whole.is_target].max() < TRAIN_DAYS * DAY_SECONDS


def test_short_form_judges_every_way(capsys: pytest.CaptureFixture[str]) -> None:
    ways = {name: WAYS[name] for name in ("naive", "fisher_0_30", "fisher_0.5_30")}
    figures = measure(users=40, seeds=1, epochs=1, ways=ways)
    assert figures["cold_ne_difference"] == 0.0
    for name in ("stale", *ways):
        gap, low, high = (figures[f"{name}_ne_difference{end}"] for end in ("", "_low", "_high"))
        assert gap is not None and low is not None and high is not None
        assert low < gap < high and gap != 0
    chosen = [line for line in capsys.readouterr().out.splitlines() if "chosen on" in line]
    assert len(chosen) == 1
    name = chosen[0].split()[3].rstrip(";")
    entropies = {way: figures[f"{way}_ne_validation"] for way in ways if way != "naive"}
    assert entropies[name] == min(v for v in entropies.values() if v is not None)
    assert figures["chosen_ne_test"] == figures[f"{name}_ne_test"]
