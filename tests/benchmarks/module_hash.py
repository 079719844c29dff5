"""A hash of what modules do, so that finished measurements are repeated when the code changes."""

import ast
import hashlib
from collections.abc import Iterable
from pathlib import Path


def module_hash(files: Iterable[Path]) -> str:
    """Return a hash of the modules' syntax trees: comments, docstrings and layout do not count."""
    digest = hashlib.sha256()
    for file in sorted(files):
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                _drop_docstring(node)
        digest.update(f"{file.name}\n{ast.dump(tree)}\n".encode())
    return digest.hexdigest()[:16]


def _drop_docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef) -> None:
    first = node.body[0] if node.body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        node.body = node.body[1:]
