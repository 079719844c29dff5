"""What a trial begins from: a checkpoint that it was given, or nothing since it failed."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray import tune

from infra.json_lines import append_line, read_lines
from infra.search_trial import Trial, TrialPlan, prepared
from infra.searched_models import prepared_recipe
from infra.training_log import HISTORY_FILE
from tests.infra.searched_folders import searched_ranker

RATE = "training.learning_rate"


def test_a_member_that_fails_on_a_gift_stays_failed_until_the_next(tmp_path: Path) -> None:
    trial = _member(tmp_path)
    append_line(trial.folder / HISTORY_FILE, {"score": 0.9})
    gift = _checkpoint(tmp_path / "gift", trial=0, reports=1)
    begun = prepared(trial, gift)
    assert begun is not None and begun.taken_from == 0
    assert begun.recipe.training.learning_rate == 0.004
    # It fails in its second epoch, and no better member gives it another checkpoint.
    begun.note_failure(FloatingPointError("the loss is nan"))
    append_line(trial.folder / HISTORY_FILE, {"score": 9.0})
    assert prepared(trial, gift) is None
    assert len(read_lines(trial.folder / HISTORY_FILE)) == 2, "it would never catch up"
    shutil.rmtree(tmp_path / "gift")  # its giver keeps the newest only
    assert prepared(trial, gift) is None
    assert prepared(replace(trial, values={RATE: 0.005}), gift) is None
    assert "the loss is nan" in (trial.folder / "failure.txt").read_text()
    assert "FloatingPointError" in (trial.folder / "traceback.txt").read_text()
    again = prepared(trial, _checkpoint(tmp_path / "later", trial=2, reports=2))
    assert again is not None and again.taken_from == 2
    assert not (trial.folder / "failure.txt").exists()
    assert not (trial.folder / "traceback.txt").exists()


def test_a_member_goes_on_from_its_own_checkpoint_unless_it_failed_after_it(tmp_path: Path) -> None:
    trial = _member(tmp_path)
    for score in (0.9, 0.8):
        append_line(trial.folder / HISTORY_FILE, {"score": score})
    own = _checkpoint(tmp_path / "own", trial=1, reports=1)
    begun = prepared(trial, own)
    assert begun is not None and begun.taken_from is None
    assert read_lines(trial.folder / HISTORY_FILE) == [{"score": 0.9}]
    begun.note_failure(FloatingPointError("the loss is nan"))
    assert prepared(trial, own) is None
    assert prepared(trial, _checkpoint(tmp_path / "moved", trial=1, reports=1)) is None


def test_a_trial_whose_process_was_lost_begins_anew(tmp_path: Path) -> None:
    trial = _member(tmp_path)
    append_line(trial.folder / HISTORY_FILE, {"score": 0.9})
    trial.finish()
    (trial.folder / "checkpoints" / "step-000000015").mkdir(parents=True)
    assert prepared(trial, None) is not None
    assert sorted(path.name for path in trial.folder.iterdir() if not path.is_symlink()) == [
        HISTORY_FILE,
        "ranker_config.json",
    ]
    assert read_lines(trial.folder / HISTORY_FILE) == []


def _member(root: Path) -> Trial:
    plan = TrialPlan(
        model="ranker",
        data=searched_ranker(root / "data", epochs=3),
        folder=root / "trials",
        fields=(RATE,),
        numbers=(0, 1, 2),
        shares=True,
        step_batches=1,
        gpus=0,
        identity="",
    )
    plan.trial_folder(1).mkdir(parents=True)
    recipe = prepared_recipe("ranker", plan.data)
    return Trial(plan=plan, number=1, values={RATE: 0.004}, recipe=recipe, taken_from=None)


def _checkpoint(folder: Path, *, trial: int, reports: int) -> Any:
    folder.mkdir()
    (folder / "trial.json").write_text(json.dumps({"trial": trial, "reports": reports}))
    (folder / "state.json").write_text(json.dumps({"history": [{"step": 15 * reports}]}))
    (folder / "optimizer.json").write_text("[]")
    return tune.Checkpoint.from_directory(str(folder))
