"""What a training's processes import: each second of it is paid by every worker of every fit."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.train_runs import Load, prepare

_ROOT = Path(__file__).parents[2]
_FIT = """
import sys
from pathlib import Path
from ml.ranking.sequence_ranker.fit import fit

fit(Path(sys.argv[1]), report=lambda *_: None, prepare=lambda model: model)
"""
_CONTROLLER = "import infra.lean_trainer, infra.process_group"


def _imported(code: str, *arguments: str) -> set[str]:
    """Return the packages that a new process has imported after running some code."""
    shown = "import sys\nprint(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{shown}", *arguments],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_the_controller_imports_no_torch() -> None:
    imported = _imported(_CONTROLLER)
    assert "ray" in imported
    assert "torch" not in imported


def test_a_rankers_worker_fits_nothing_with_scikit_learn(tmp_path: Path) -> None:
    # The recipe's regression on what users share is fitted where the folder is prepared.
    load = Load(recipe="toy", workers=1, cpus=1, steps=2, epochs=2, row_events=8, batch_events=32)
    imported = _imported(_FIT, str(prepare(load, tmp_path / "prepared")))
    assert "torch" in imported
    assert not imported & {"sklearn", "pandas", "transformers", "ray"}


def test_a_folder_without_what_was_fitted_says_what_to_do(tmp_path: Path) -> None:
    from ml.ranking.sequence_ranker.fit import fit

    load = Load(recipe="no_action", workers=1, cpus=1, steps=2, row_events=8, batch_events=32)
    folder = prepare(load, tmp_path / "prepared")
    (folder / "fitted.npz").unlink()
    with pytest.raises(ValueError, match=r"lacks fitted\.npz, .*prepare it again"):
        fit(folder, report=lambda *_: None, prepare=lambda model: model)
