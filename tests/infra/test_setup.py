"""The set-up finds what it needs, or stops with one line; the make targets hold together."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

TOOLS = ["bash", "dirname", "id", "sed", "cat", "sha256sum", "cut", "grep", "ls", "env", "which"]


def _write_program(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path, checkout: Path) -> Path:
    """Return the only folder of programs of a machine without Python, Java and apt."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        if found is not None:
            (programs / tool).symlink_to(found)
    copy = tmp_path / "checkout" / "infra"
    copy.mkdir(parents=True)
    shutil.copytree(checkout / "infra" / "setup", copy / "setup")
    return programs


def _set_up(machine: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(machine.parent / "checkout" / "infra" / "setup" / "install.sh"), "--check"],
        env={"PATH": str(machine), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def _add_python(machine: Path, name: str, *, minor: int, is_whole: bool = True) -> None:
    """Add an interpreter that says to be 3.<minor>; without venv if it is not whole."""
    answer = "exit 0" if 11 <= minor <= 12 else "exit 1"
    whole = "exit 0" if is_whole else "exit 1"
    _write_program(
        machine / name,
        f'case "$2" in *ensurepip*) {whole} ;; *venv\\"*) echo python3.{minor}-venv ;;'
        f" *) {answer} ;; esac",
    )


def _add_java(folder: Path, version: str) -> None:
    _write_program(folder / "java", f"echo 'openjdk version \"{version}\" 2025' >&2")


def test_takes_the_first_interpreter_that_works(machine: Path) -> None:
    _add_python(machine, "python3", minor=13)
    _write_program(machine / "python3.12", "echo 'pyenv: command not found' >&2; exit 127")
    _add_python(machine, "python3.11", minor=11)
    _add_java(machine, "21.0.4")
    answer = _set_up(machine)
    assert answer.returncode == 0, answer.stderr
    assert f"Python {machine}/python3.11" in answer.stdout
    assert "Java 21" in answer.stdout
    assert "no C++ compiler" in answer.stdout


def test_missing_python_stops_with_one_line(machine: Path) -> None:
    _add_python(machine, "python3", minor=10)
    _expect_stop(_set_up(machine), "no Python 3.11 or 3.12 was found: install python3.12")
    _expect_stop(
        _set_up(machine, PYTHON="python3"), "PYTHON=python3 is not a working Python 3.11 or 3.12"
    )


def test_missing_venv_stops_with_the_package(machine: Path) -> None:
    _add_python(machine, "python3", minor=12, is_whole=False)
    _add_java(machine, "17.0.1")
    _expect_stop(_set_up(machine), "cannot make virtual environments: install python3.12-venv")


@pytest.mark.parametrize("version", [None, "11.0.2", "26"])
def test_missing_java_stops_with_the_package(machine: Path, version: str | None) -> None:
    _add_python(machine, "python3", minor=11)
    if version is not None:
        _add_java(machine, version)
    found = (version or "none").split(".")[0]
    _expect_stop(
        _set_up(machine),
        f"Java 17 to 25 is needed (found: {found}): install openjdk-17-jre-headless",
    )


def test_java_home_is_honoured(machine: Path, tmp_path: Path) -> None:
    _add_python(machine, "python3", minor=11)
    _add_java(machine, "11.0.2")
    _add_java(tmp_path / "java" / "bin", "25")
    assert "Java 25" in _set_up(machine, JAVA_HOME=str(tmp_path / "java")).stdout
    _expect_stop(
        _set_up(machine, JAVA_HOME="/nowhere"),
        "JAVA_HOME=/nowhere holds Java none: set it to Java 17 to 25, or unset it",
    )


def test_root_with_apt_would_install_what_is_missing(machine: Path) -> None:
    _add_python(machine, "python3", minor=12, is_whole=False)
    _write_program(machine / "apt-get", "exit 1")
    (machine / "id").unlink()
    _write_program(machine / "id", "echo 0")
    answer = _set_up(machine)
    assert answer.returncode == 0, answer.stderr
    assert "python3.12-venv: to be installed" in answer.stdout
    assert "Java: to be installed" in answer.stdout


def _expect_stop(answer: subprocess.CompletedProcess[str], line: str) -> None:
    assert answer.returncode == 1
    assert answer.stderr.count("\n") == 1
    assert line in answer.stderr


def test_locks_have_hashes_and_no_addresses(checkout: Path) -> None:
    for name in ("requirements.lock", "infra/deploy/bootstrap.lock"):
        text = (checkout / name).read_text()
        assert "://" not in text
        pins = re.findall(r"^[a-z0-9][^\s=]*==\S+.*\\$", text, flags=re.MULTILINE)
        hashed = re.findall(r"\\\n    --hash=sha256:[0-9a-f]{64}", text)
        assert len(pins) >= 1
        assert len(hashed) >= len(pins)
        assert not re.search(r"^[a-z0-9][^\s=]*==[^\\]*$", text, flags=re.MULTILINE)


def test_help_lists_every_target(checkout: Path) -> None:
    answer = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=True,
    )
    listed = [line.split()[0] for line in answer.stdout.splitlines()]
    makefile = (checkout / "Makefile").read_text()
    phony = re.findall(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)[0].split()
    assert sorted(listed) == sorted(phony)


def _clean(checkout: Path, home: Path, answer: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(checkout / "infra" / "setup" / "clean_data.sh")],
        input=answer,
        env={"PATH": os.environ["PATH"], "RANKLAKE_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_data_home_is_removed_only_after_a_yes(tmp_path: Path, checkout: Path) -> None:
    home = tmp_path / "home"
    (home / "simulated" / "lake").mkdir(parents=True)
    (home / "simulated" / "source.json").write_text("{}")
    for answer in ("", "no\n", "y\n"):
        assert _clean(checkout, home, answer).returncode == 1
        assert (home / "simulated" / "source.json").exists()
    assert _clean(checkout, home, "yes\n").returncode == 0
    assert not home.exists()
    assert "nothing to remove" in _clean(checkout, home, "").stdout


def test_list_of_suppressed_users_outlives_the_data_home(tmp_path: Path, checkout: Path) -> None:
    (tmp_path / "simulated" / "lake").mkdir(parents=True)
    (tmp_path / "simulated" / "source.json").write_text("{}")
    (tmp_path / "simulated" / "suppressed_users.json").write_text("{}")
    answer = _clean(checkout, tmp_path, "yes\n")
    assert answer.returncode == 0 and "but the list of suppressed users" in answer.stdout
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert left == [tmp_path / "simulated" / "suppressed_users.json"]


@pytest.mark.parametrize("stranger", ["thesis.tex", ".git"])
def test_other_folder_is_never_removed(tmp_path: Path, checkout: Path, stranger: str) -> None:
    (tmp_path / "simulated").mkdir()
    (tmp_path / stranger).mkdir()
    answer = _clean(checkout, tmp_path, "yes\n")
    assert answer.returncode == 1
    assert f"it holds {stranger}" in answer.stderr
    assert (tmp_path / "simulated").exists()
