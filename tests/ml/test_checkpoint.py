"""A checkpoint folder is whole at every moment, whatever ends the process that replaces it."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from ml.training.checkpoint import (
    export_model,
    load_model,
    load_state,
    newest_checkpoint,
    read_weights,
    save_checkpoint,
)
from ml.training.checkpoint_keeper import CheckpointKeeper
from ml.training.config import CheckpointConfig
from ml.training.fisher_prior import FISHER_FILE, save_fisher
from tests.infra.small_disk import filled, mounted

NAME = "step-000000004"


def _save(folder: Path, value: float) -> Path:
    model = nn.Linear(2, 1)
    nn.init.constant_(model.weight, value)
    return save_checkpoint(folder / NAME, model, state={"value": value})


def _value(folder: Path) -> float:
    """Return the value that a checkpoint was written with, which all its files must agree on."""
    model = nn.Linear(2, 1)
    load_model(folder, model)
    value = load_state(folder)["value"]
    assert torch.equal(model.weight, torch.full((1, 2), value))
    return value


@pytest.mark.parametrize(("operation", "call"), [("rename", 0), ("rename", 1), ("rmtree", 0)])
def test_a_crash_while_a_checkpoint_is_replaced_leaves_one_of_the_two(
    tmp_path: Path, operation: str, call: int
) -> None:
    """The process ends right after its nth rename, or after the first file that it removes."""
    _save(tmp_path, 1.0)
    script = f"""
        import os, pathlib
        from torch import nn
        from ml.training.checkpoint import save_checkpoint

        def ending_after(function, calls):
            left = [calls]
            def call(*arguments, **options):
                result = function(*arguments, **options)
                if not left[0]:
                    os._exit(9)
                left[0] -= 1
                return result
            return call

        model = nn.Linear(2, 1)
        nn.init.constant_(model.weight, 2.0)
        if {operation!r} == "rename":
            pathlib.Path.rename = ending_after(pathlib.Path.rename, {call})
        else:
            os.unlink = ending_after(os.unlink, {call})
        save_checkpoint(pathlib.Path({str(tmp_path / NAME)!r}), model, state={{"value": 2.0}})
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert ended.returncode == 9
    keeper = CheckpointKeeper(tmp_path, config=CheckpointConfig())
    newest = keeper.newest()
    assert newest is not None
    assert _value(newest) in (1.0, 2.0)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_a_checkpoint_that_cannot_appear_leaves_the_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _save(tmp_path, 1.0)
    rename = Path.rename

    def failing(path: Path, target: Path) -> Path:
        if target.name == NAME and path.name.startswith(f".{NAME}-"):
            raise OSError("the disk is gone")
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", failing)
        with pytest.raises(OSError, match="the disk is gone"):
            _save(tmp_path, 2.0)
    assert _value(tmp_path / NAME) == 1.0
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert _value(_save(tmp_path, 3.0)) == 3.0
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_an_older_folder_half_removed_is_never_taken_for_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = CheckpointKeeper(tmp_path, config=CheckpointConfig(keep_last=1, keep_best=1))

    def write(step: int) -> Path | None:
        return keeper.write(
            step, save=lambda folder: save_checkpoint(folder, nn.Linear(2, 1)), best_steps=[]
        )

    write(1)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", _power_cut)
        with pytest.raises(KeyboardInterrupt):
            write(2)
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-000000002"]
    CheckpointKeeper(tmp_path, config=CheckpointConfig())
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000002"]
    assert newest_checkpoint(tmp_path) == tmp_path / "step-000000002"


def _power_cut(folder: Path, ignore_errors: bool = False) -> None:
    """Remove one file of a folder that has some, and end."""
    if files := sorted(folder.glob("*.safetensors")):
        files[0].unlink()
        raise KeyboardInterrupt


def test_a_served_model_stays_until_its_successor_is_whole(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", mebibytes=4) as disk:
        served = disk / "models" / "ranker"
        export_model(_save(tmp_path / "1", 1.0), served)
        newer = _save(tmp_path / "2", 2.0)
        (newer / "vocabulary.json").write_text("x" * 100_000)
        with filled(disk, room_bytes=20_000), pytest.raises(OSError, match="No space left"):
            export_model(newer, served)
        assert _weight(served) == 1.0
        assert [path.name for path in served.parent.iterdir()] == ["ranker"]
        export_model(newer, served)
        assert _weight(served) == 2.0
        assert [path.name for path in served.parent.iterdir()] == ["ranker"]


def _weight(folder: Path) -> float:
    model = nn.Linear(2, 1)
    load_model(folder, model)
    return float(model.weight[0, 0].detach())


def test_fisher_information_that_does_not_fit_on_the_disk_leaves_the_older(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", mebibytes=4) as disk:
        folder = _save(disk, 1.0)
        save_fisher(folder, {"weight": torch.ones(1, 2)})
        before = sorted(path.name for path in folder.iterdir())
        with filled(disk, room_bytes=20_000), pytest.raises(OSError, match="No space left"):
            save_fisher(folder, {"weight": torch.ones(100_000)})
        assert torch.equal(load_file(folder / FISHER_FILE)["weight"], torch.ones(1, 2))
        assert sorted(path.name for path in folder.iterdir()) == before


def test_saving_copies_only_what_shares_memory_or_is_not_contiguous(tmp_path: Path) -> None:
    whole = torch.arange(1_000_000.0).view(1000, 1000)
    weights = {"whole": whole, "tied": whole, "rows": whole[3:5], "turned": whole[:2].T}
    with torch.profiler.profile(profile_memory=True) as seen:
        folder = save_checkpoint(tmp_path / NAME, {"whole": whole})
    events = seen.events()
    assert events
    assert sum(max(event.self_cpu_memory_usage, 0) for event in events) < whole.nbytes / 10
    save_checkpoint(folder, weights)
    read = read_weights(folder)
    assert {name: torch.equal(read[name], weight) for name, weight in weights.items()} == (
        dict.fromkeys(weights, True)
    )
