"""The README's commands exist: every make target, variable and path that it names."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from infra.settings import Settings
from infra.sources import MODULES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = "\n".join(re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL))
COMMANDS = [line.split("#")[0].strip() for line in BLOCKS.splitlines() if line.startswith("make")]


def test_the_readme_has_commands() -> None:
    assert {"make run", "make test"} <= set(COMMANDS)


@pytest.mark.parametrize("command", sorted(set(COMMANDS)))
def test_make_knows_the_command(command: str) -> None:
    done = subprocess.run(
        [*shlex.split(command), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_sources_named_in_the_readme_exist() -> None:
    assert set(re.findall(r"SOURCE=(\w+)", README)) <= set(MODULES)


def test_example_files_named_in_the_readme_exist() -> None:
    for path in re.findall(r"examples/[\w.]+", README):
        assert (ROOT / path).exists(), path


def test_variables_named_in_the_readme_are_read_by_the_settings() -> None:
    source = (ROOT / "infra" / "settings.py").read_text()
    fields = set(Settings.__dataclass_fields__)
    for name in set(re.findall(r"RANKLAKE_[A-Z_]+", README)) - {"RANKLAKE_DATA"}:
        assert name in source or name.removeprefix("RANKLAKE_").lower() in fields, name


def test_no_placeholder_is_left() -> None:
    assert "@@" not in README
