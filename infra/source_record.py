"""Hold a data home to the one source that it was made from."""

import hashlib
import json
import os
from pathlib import Path

from infra.errors import UserError
from pipelines.sources.manifest import SourceManifest

Identity = dict[str, str]


def load_manifest(file: Path, *, identity: Identity) -> SourceManifest | None:
    """Return the manifest of the source that a home holds, or None for a new home.

    Args:
        file: The home's record.
        identity: What the caller takes the source to be: its name, path and options.

    Raises:
        UserError: If the home holds another source, or its record cannot be read.
    """
    if not file.exists():
        return None
    try:
        record = json.loads(file.read_text())
        held, manifest = record["identity"], SourceManifest.from_json(record["manifest"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file} cannot be read ({error})", remedy="start over with make clean-data"
        ) from error
    differences = [
        f"{name} is {held.get(name, 'unset')} there and {identity.get(name, 'unset')} here"
        for name in sorted({*held, *identity})
        if held.get(name) != identity.get(name)
    ]
    if differences:
        raise UserError(
            f"data home {file.parent} holds another source: {', '.join(differences)}",
            remedy="set RANKLAKE_HOME to another folder, or make clean-data",
        )
    return manifest


def recorded_paths(file: Path) -> dict[str, str]:
    """Return the data and mapping paths that a home was made from; empty for a new home."""
    try:
        held = json.loads(file.read_text())["identity"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {name: held[name] for name in ("data", "mapping") if name in held}


def save_manifest(file: Path, manifest: SourceManifest, *, identity: Identity) -> None:
    """Record the source of a home, so that no other is mixed in; whole or not at all.

    Raises:
        UserError: If the home holds another source.
    """
    load_manifest(file, identity=identity)
    record = {"identity": identity, "manifest": manifest.to_json()}
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}.tmp")
    partial.write_text(json.dumps(record, indent=1))
    partial.replace(file)


def text_digest(path: str) -> str:
    """Return the SHA-256 of a file, or "missing"."""
    file = Path(path)
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "missing"
