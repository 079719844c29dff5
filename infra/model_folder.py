"""What a registered model is on disk: data that only our own loader reads."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infra.errors import UserError
from infra.model_loader import CARD_FILE, check_folder

LOADER_MODULE = "infra.model_loader"
_PYFUNC_KEYS = {"loader_module", "data", "env", "python_version", "streamable"}


@contextmanager
def staged(folder: Path, *, kind: str, name: str) -> Iterator[Path]:
    """Give a copy of a model folder that says what kind it is; it is gone afterwards.

    Args:
        folder: Safetensors and JSON.
        kind: Key of `infra.model_loader.KINDS`.
        name: Registered name.
    """
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary) / "model"
        shutil.copytree(folder, copy)
        text = json.dumps({"kind": kind, "name": name}, indent=1)
        (copy / CARD_FILE).write_text(text, encoding="utf-8")
        yield copy


def data_folder(path: Path) -> Path:
    """Return where a stored model keeps its data.

    Args:
        path: Folder with the MLmodel file.
    """
    return path / str(_flavors(path)["python_function"]["data"])


def refuse_foreign(path: Path, *, name: str) -> None:
    """Stop unless a stored model is a folder of data that our own loader reads.

    Raises:
        UserError: If loading it would run code from the registry.
    """
    flavors = _flavors(path)
    pyfunc = flavors.get("python_function", {})
    others = {key for key, value in pyfunc.items() if value} - _PYFUNC_KEYS
    others |= set(flavors) - {"python_function"}
    if others or pyfunc.get("loader_module") != LOADER_MODULE:
        raise UserError(
            f"model {name!r} is refused: its MLmodel file asks for {pyfunc.get('loader_module')!r} "
            f"and {sorted(others)}, and only {LOADER_MODULE} may load a model",
            remedy="register it again, and find out who changed the artefact folder",
        )
    data = (path / str(pyfunc.get("data"))).resolve()
    if path.resolve() not in data.parents:
        raise UserError(f"model {name!r} is refused: its data lies outside its own folder")
    try:
        check_folder(data)
    except ValueError as error:
        raise UserError(f"model {name!r} is refused: {error}") from error


def _flavors(path: Path) -> dict[str, Any]:
    import yaml

    return yaml.safe_load((path / "MLmodel").read_text(encoding="utf-8")).get("flavors", {})
