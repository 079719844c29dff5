"""The search's command: what it is told, and what it prints."""

import pytest

from infra.errors import UserError
from jobs.search import read_arguments, report_lines

RATE = "training.learning_rate"


def test_empty_arguments_search_the_ranker() -> None:
    assert read_arguments(["", "", "", "", "", ""]) == read_arguments([]) == {"model": "ranker"}


def test_arguments_are_model_trials_methods_recipe_and_seed() -> None:
    assert read_arguments(["retriever", "4", "1", "", "toy", "3"]) == {
        "model": "retriever",
        "method": "population",
        "trials": 4,
        "seed": 3,
        "recipe": "toy",
    }
    assert read_arguments(["ranker", "", "", "1"])["method"] == "asha"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["forest"], "no model 'forest' to search; choose one of"),
        (["", "0"], "TRIALS must be a whole number of at least 1, not '0'"),
        (["", "many"], "TRIALS must be a whole number"),
        (["", "", "", "", "", "-1"], "SEED must be a whole number of at least 0, not '-1'"),
        (["", "", "1", "1"], "PBT=1 and ASHA=1 are two methods; set one of them"),
    ],
)
def test_names_what_is_wrong(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_arguments(arguments)


def test_prints_the_best_trial_first_and_the_failed_last() -> None:
    trials = [
        _trial(0, 0.9, taken=[None, None]),
        _trial(1, None, failure="FloatingPointError: the loss is nan"),
        _trial(2, 0.8, taken=[None, 0]),
    ]
    found = {
        "monitor": "validation_ne",
        "best": {"trial": 2, "score": 0.8, "overrides": {RATE: 0.002}},
        "trials": trials,
        "mlflow_run": "abc",
        "run_config": {"ops": {"ranker": {"config": {"overrides": {RATE: 0.002}}}}},
    }
    lines = report_lines(found)
    assert lines[0].split() == ["trial", "validation_ne", "epochs", "learning_rate"]
    assert [line.split()[:2] for line in lines[1:4]] == [
        ["2", "0.80000"],
        ["0", "0.90000"],
        [
            "1",
            "failed",
        ],
    ]
    assert lines[1].endswith("took over from trial 0 at epoch 1")
    assert lines[3].endswith("the loss is nan")
    assert lines[5] == "best: trial 2, training.learning_rate 0.002"
    assert "abc" in lines[6] and '"overrides": {"training.learning_rate": 0.002}' in lines[7]


def _trial(
    number: int,
    score: float | None,
    *,
    taken: list[int | None] | None = None,
    failure: str | None = None,
) -> dict[str, object]:
    return {
        "trial": number,
        "score": score,
        "epochs": 2,
        "values": {RATE: 0.001},
        "taken_from": taken or [None],
        "failure": failure,
    }
