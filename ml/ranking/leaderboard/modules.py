"""Name the state of the code that a recipe runs: a hash of the modules that it imports.

Read from the source files by their syntax trees, transitively inside one package; nothing is
imported. Comments, docstrings and blank lines do not count, for they change no result.
"""

import ast
import hashlib
import io
import tokenize
from functools import lru_cache
from pathlib import Path

_DIGITS = 16


def modules_hash(module: str, *, root: Path, extra: str = "") -> str:
    """Return a hash of a module's code and of all code that it imports from its own package.

    Args:
        module: Dotted name.
        root: Folder that the package lies in.
        extra: Anything else that decides about the result, such as the recipe's arguments.

    Raises:
        ValueError: If there is no such module.
    """
    digest = hashlib.sha256(extra.encode())
    for name, path in sorted(imported_modules(module, root=root).items()):
        digest.update(f"\0{name}\0".encode())
        digest.update(code_only(path.read_text(encoding="utf-8")).encode())
    return digest.hexdigest()[:_DIGITS]


def imported_modules(module: str, *, root: Path) -> dict[str, Path]:
    """Return the module and all that it imports from its own package, by name, with their files.

    Imports inside of functions count as well.

    Args:
        module: Dotted name.
        root: Folder that the package lies in.

    Raises:
        ValueError: If there is no such module.
    """
    if _file(module, root) is None:
        raise ValueError(f"there is no module {module} under {root.name}/: name one that exists")
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _file(name, root)
        if name in found or path is None:
            continue
        found[name] = path
        waiting += _imports(path.read_text(encoding="utf-8"), package=module.split(".")[0])
    return found


def _file(module: str, root: Path) -> Path | None:
    place = root.joinpath(*module.split("."))
    for path in (place.with_suffix(".py"), place / "__init__.py"):
        if path.is_file():
            return path
    return None


@lru_cache(maxsize=1024)
def _imports(source: str, *, package: str) -> tuple[str, ...]:
    """Return what source text imports from the package; of `from a import b` both a and a.b."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(name for name in names if name.split(".")[0] == package)


@lru_cache(maxsize=1024)
def code_only(source: str) -> str:
    """Return source text without comments, docstrings, blank lines and trailing blanks.

    The text and not the tree, for a tree is written down differently by each Python.
    """
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and _is_text(node):
            for row in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                lines[row - 1] = ""
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _is_text(node: ast.Expr) -> bool:
    return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
