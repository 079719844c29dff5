"""The search's command: what it is told, and what it prints."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from infra.errors import UserError
from jobs.search import read_arguments, report_lines

RATE = "training.learning_rate"
ROOT = Path(__file__).parents[2]


def test_empty_arguments_search_the_ranker() -> None:
    assert read_arguments([""] * 7) == read_arguments([]) == {"model": "ranker"}


def test_arguments_are_model_trials_methods_recipe_seed_and_fields() -> None:
    fields = f"{RATE}=1e-4:1e-2, training.weight_decay,"
    assert read_arguments(["retriever", "4", "1", "0", "toy", "3", fields]) == {
        "model": "retriever",
        "method": "population",
        "trials": 4,
        "seed": 3,
        "recipe": "toy",
        "fields": [f"{RATE}=1e-4:1e-2", "training.weight_decay"],
    }
    assert read_arguments(["ranker", "", "", "1"])["method"] == "asha"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["forest"], "no model 'forest' to search; choose one of"),
        (["", "0"], "TRIALS must be a whole number of at least 1, not '0'"),
        (["", "many"], "TRIALS must be a whole number"),
        (["", "", "", "", "", "-1"], "SEED must be a whole number of at least 0, not '-1'"),
        (["", "", "yes"], "PBT must be 1, 0 or empty, not 'yes'; write PBT=1"),
        (["", "", "", "on"], "ASHA must be 1, 0 or empty, not 'on'; write ASHA=1"),
        (["", "1", "1"], "a population search needs at least 2 trials"),
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
    found = _found(trials)
    lines = report_lines(found)
    assert lines[0].split() == ["trial", "validation_ne", "epochs", "learning_rate"]
    assert [line.split()[:2] for line in lines[1:4]] == [
        ["2", "0.80000"],
        ["0", "0.90000"],
        ["1", "failed"],
    ]
    assert lines[1].endswith("took over from trial 0 at epoch 1")
    assert lines[3].endswith("the loss is nan")
    assert lines[5] == f"searched: {RATE} from 0.0001 to 0.01 by its logarithm"
    assert lines[6] == "note: a trial is one replica"
    assert lines[7] == "best: trial 2, training.learning_rate 0.002"
    assert "abc" in lines[8]
    assert lines[9].startswith("run configuration that trains with it: ")
    assert '"overrides": {"training.learning_rate": 0.002}' in lines[9]


def test_a_trial_that_failed_later_is_printed_after_those_that_did_not() -> None:
    trials = [_trial(0, 0.1, failure="the loss is nan"), _trial(1, 0.9), _trial(2, None)]
    lines = report_lines(_found(trials))
    assert [line.split()[0] for line in lines[1:4]] == ["1", "0", "2"]


def test_says_which_trials_were_kept_and_that_a_population_is_not_run_again() -> None:
    kept = {**_trial(2, 0.8), "kept": True}
    lines = report_lines({**_found([kept]), "method": "population"})
    assert lines[1].endswith("kept from an earlier search")
    assert lines[-1].startswith(
        "run configuration that trains from the start with the values of the best epoch, not by "
        "their course: "
    )


def test_make_takes_no_argument_of_the_search_from_the_environment() -> None:
    names = ("MODEL", "TRIALS", "PBT", "ASHA", "RECIPE", "SEED", "FIELDS")
    shell = {**os.environ, **dict.fromkeys(names, "shell")}
    done = subprocess.run(
        ["make", "--dry-run", "search", "MODEL=retriever", f"FIELDS={RATE}=1e-4:1e-2, b"],
        cwd=ROOT,
        env=shell,
        capture_output=True,
        text=True,
        check=True,
    )
    [command] = [line for line in done.stdout.splitlines() if "jobs.search" in line]
    given = ["retriever", "", "", "", "", "", f"{RATE}=1e-4:1e-2, b"]
    assert shlex.split(command)[-7:] == given


def _found(trials: list[dict[str, object]]) -> dict[str, object]:
    return {
        "monitor": "validation_ne",
        "method": "random",
        "space": {RATE: {"low": 1e-4, "high": 1e-2, "log": True}},
        "notes": ["a trial is one replica"],
        "best": {"trial": 2, "score": 0.8, "overrides": {RATE: 0.002}},
        "trials": trials,
        "mlflow_run": "abc",
        "run_config": {"ops": {"ranker": {"config": {"overrides": {RATE: 0.002}}}}},
    }


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
        "kept": False,
    }
