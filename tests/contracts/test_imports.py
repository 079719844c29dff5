"""The arrows between the rooms, read from the code's own import statements."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN = {
    "pipelines": {"dagster", "ray", "mlflow", "torch", "ml", "infra", "assets", "jobs"},
    "ml": {"dagster", "ray", "mlflow", "pyspark", "pipelines", "infra", "assets", "jobs"},
    "infra": {"assets", "jobs"},
    "assets": {"jobs"},
    "jobs": set(),
}
HEAVY = ("torch", "ray", "mlflow", "pyspark", "great_expectations", "transformers", "sklearn")


def _imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("room", FORBIDDEN)
def test_a_room_imports_only_along_the_arrows(room: str) -> None:
    found = {
        str(path.relative_to(ROOT)): bad
        for path in (ROOT / room).rglob("*.py")
        if (bad := _imported(path) & FORBIDDEN[room])
    }
    assert not found


def test_loading_the_definitions_imports_nothing_heavy() -> None:
    code = (
        "import sys, jobs.definitions as d; d.defs.resolve_all_asset_keys(); "
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().splitlines()[-1] == "[]"
