"""Bad input ends with one clear line that names the thing and the remedy, and no table."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def _run(home: Path, checkout: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    inherited = {n: v for n, v in os.environ.items() if not n.startswith("RANKLAKE_")}
    return subprocess.run(
        [sys.executable, "-m", "jobs.run"],
        cwd=checkout,
        env={**inherited, "RANKLAKE_HOME": str(home), "RANKLAKE_PROFILE": "test", **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def _message(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("ranklake: ")]
    assert len(lines) == 1, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return lines[0]


def _mapping(folder: Path, user: str = "user") -> Path:
    path = folder / "mapping.toml"
    path.write_text(
        'log = "labelled"\nprimary_action = "click"\n'
        f'[columns]\nuser = "{user}"\nitem = "item"\n'
        '[time]\ncolumn = "time"\nunit = "s"\n[action.columns]\nclick = "click"\n'
    )
    return path


def test_unknown_source(tmp_path: Path, checkout: Path) -> None:
    text = _message(_run(tmp_path, checkout, RANKLAKE_SOURCE="kuairnd"))
    assert "kuairnd" in text and "kuairand" in text


def test_missing_path(tmp_path: Path, checkout: Path, jar_cache: Path) -> None:
    done = _run(
        tmp_path,
        checkout,
        RANKLAKE_SOURCE="kuairand",
        RANKLAKE_DATA_PATH=str(tmp_path / "nowhere"),
        RANKLAKE_JARS=str(jar_cache),
    )
    assert str(tmp_path / "nowhere") in _message(done)
    assert not (tmp_path / "kuairand" / "lake").exists()


@pytest.mark.parametrize(
    ("log", "user", "expected"),
    [
        ("user,item,time,click\n", "user", "empty"),
        ("user,item,time,click\nu,i,1700000000,1\n", "usr", "usr"),
    ],
)
def test_empty_log_and_unknown_column(
    tmp_path: Path, checkout: Path, jar_cache: Path, log: str, user: str, expected: str
) -> None:
    (tmp_path / "log.csv").write_text(log)
    done = _run(
        tmp_path / "home",
        checkout,
        RANKLAKE_SOURCE="mapped",
        RANKLAKE_DATA_PATH=str(tmp_path / "log.csv"),
        RANKLAKE_MAPPING=str(_mapping(tmp_path, user)),
        RANKLAKE_JARS=str(jar_cache),
    )
    assert expected in _message(done)
    assert not (tmp_path / "home" / "mapped" / "lake").exists()


def test_number_that_is_none(tmp_path: Path, checkout: Path) -> None:
    assert "RANKLAKE_WORKERS" in _message(_run(tmp_path, checkout, RANKLAKE_WORKERS="two"))
