"""Which interrupted training a run goes on with, and with how many workers."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from assets.fitting import Training, code_state, least_workers, new_data, unfinished
from infra.pinned_tables import PinnedTables
from ml.training.checkpoint import save_checkpoint


@pytest.fixture
def training(tmp_path: Path) -> Training:
    return Training(
        name="ranker",
        recipe="toy",
        config={"training": {"epochs": 3, "sharding": "none"}},
        data=tmp_path / "data",
        tables=PinnedTables(root=tmp_path, versions={"sequences": 3}),
        workers=2,
        code="abc",
    )


def _begin(training: Training, *, step: int) -> None:
    with new_data(training):
        training.data.mkdir()
    save_checkpoint(
        training.data / "checkpoints" / f"step-{step:09d}", {}, state={"step": step, "history": []}
    )


def test_goes_on_from_the_newest_step_of_the_same_training(training: Training) -> None:
    assert unfinished(training) is None
    _begin(training, step=69)
    assert unfinished(training) == replace(training, resumed_from_step=69)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda t: replace(t, workers=3), "number of workers"),
        (lambda t: replace(t, code="def"), "code"),
        (lambda t: replace(t, recipe="default"), "recipe"),
        (lambda t: replace(t, config={"training": {"epochs": 4}}), "config"),
        (lambda t: replace(t, tables=replace(t.tables, versions={"sequences": 4})), "table"),
    ],
)
def test_another_training_begins_anew_and_says_why(
    training: Training,
    change: Callable[[Training], Training],
    name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    _begin(training, step=69)
    with caplog.at_level(logging.WARNING):
        assert unfinished(change(training)) is None
    assert f"stopped at step 69 had another {name}" in caplog.text


def test_a_damaged_record_is_no_training(
    training: Training, caplog: pytest.LogCaptureFixture
) -> None:
    _begin(training, step=69)
    (training.data / "prepared.json").write_text("")
    assert unfinished(training) is None
    assert "damaged" in caplog.text


def test_data_that_could_not_be_written_whole_is_not_prepared(training: Training) -> None:
    with pytest.raises(OSError, match="full"), new_data(training):
        training.data.mkdir()
        raise OSError("full")
    assert unfinished(training) is None


@pytest.mark.parametrize(
    ("changes", "wanted", "expected"),
    [
        ({}, None, None),
        ({}, 1, 1),
        ({}, 2, None),
        ({"is_elastic": False}, 1, None),
        ({"workers": 3, "config": {"training": {"sharding": "full"}}}, 1, 2),
    ],
)
def test_goes_on_with_as_few_workers_as_the_training_can(
    training: Training, changes: dict[str, Any], wanted: int | None, expected: int | None
) -> None:
    assert least_workers(replace(training, **changes), wanted=wanted) == expected


def test_the_state_of_the_code_knows_models_apart() -> None:
    states = [
        code_state(module)
        for module in (
            "ml.ranking.sequence_ranker.fit",
            "ml.generative.prompt_ranker.fit",
            "ml.retrieval.dual_encoder.fit",
        )
    ]
    assert len(set(states)) == 3
    assert states[0] == code_state("ml.ranking.sequence_ranker.fit")
