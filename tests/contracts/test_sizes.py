"""Sizes of files and functions, and the shape of signatures, as the architecture states them."""

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("pipelines", "ml", "infra", "assets", "jobs")
FORBIDDEN_NAMES = {"utils.py", "common.py", "helpers.py", "base.py"}
# Signatures that another one dictates: torch's OneCycleLR, and the adapters' common interface.
DICTATED = {"HDETScheduler.__init__", "SourceModule.events"}
ADAPTERS = "pipelines/sources/"


def _modules() -> list[Path]:
    return sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def _functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef, bool]]:
    for path in _modules():
        tree = ast.parse(path.read_text())
        owners = {
            child: node
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef)
            for child in node.body
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                owner = owners.get(node)
                name = f"{owner.name}.{node.name}" if owner else node.name
                yield f"{path.relative_to(ROOT)}:{name}", node, owner is not None


def _length(node: ast.AST) -> int:
    return (node.end_lineno or 0) - node.lineno + 1  # type: ignore[attr-defined]


def _percentile(values: list[int], fraction: float) -> int:
    return sorted(values)[min(len(values) - 1, int(fraction * len(values)))]


def test_files_keep_to_the_stated_lengths() -> None:
    lines = {path: len(path.read_text().splitlines()) for path in _modules()}
    lines = {path: count for path, count in lines.items() if path.name != "__init__.py"}
    assert not {str(p): n for p, n in lines.items() if n > 400}
    assert statistics.median(lines.values()) <= 120
    assert _percentile(list(lines.values()), 0.9) <= 250


def test_functions_keep_to_the_stated_lengths() -> None:
    lengths = {name: _length(node) for name, node, _ in _functions()}
    assert not {name: n for name, n in lengths.items() if n > 60}
    assert _percentile(list(lengths.values()), 0.9) <= 40


def test_functions_take_at_most_five_arguments() -> None:
    crowded = {}
    for name, node, is_method in _functions():
        arguments = node.args
        count = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
        count -= 1 if is_method and not _is_static(node) else 0
        place, function = name.split(":")
        is_adapter = place.startswith(ADAPTERS) and function == "events"
        if count > 5 and function not in DICTATED and not is_adapter:
            crowded[name] = count
    assert not crowded


def _is_static(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    names = {d.id for d in node.decorator_list if isinstance(d, ast.Name)}
    return "staticmethod" in names


def test_package_files_hold_a_docstring_only() -> None:
    for path in _modules():
        if path.name == "__init__.py":
            body = ast.parse(path.read_text()).body
            assert len(body) == 1 and isinstance(body[0], ast.Expr), path


def test_no_room_is_named_after_nothing() -> None:
    assert not [path for path in _modules() if path.name in FORBIDDEN_NAMES]


def test_the_composition_root_stays_short() -> None:
    assert len((ROOT / "jobs" / "definitions.py").read_text().splitlines()) <= 60
