"""Published zip files: the members that an adapter knows, unpacked once."""

import hashlib
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path

from pipelines.sources.errors import SourceError


def unzipped(archive: Path, *, names: Collection[str], source: str) -> Path:
    """Copy a zip's known files to a folder of the temporary directory, named by their content.

    Folders inside the zip are not kept, so no member can be written elsewhere.

    Args:
        archive: The zip file.
        names: File names to unpack; all others are left in the zip.
        source: Name of the source, for the folder's name.

    Raises:
        SourceError: If the zip is broken, or the folder belongs to another user.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            members = {
                name: one for one in packed.infolist() if (name := Path(one.filename).name) in names
            }
            content = "".join(f"{name}:{one.CRC}:{one.file_size};" for name, one in members.items())
            digest = hashlib.sha256(content.encode()).hexdigest()[:16]
            folder = Path(tempfile.gettempdir()) / f"ranklake-{source}-{os.getuid()}-{digest}"
            folder.mkdir(mode=0o700, exist_ok=True)
            if folder.stat().st_uid != os.getuid():
                raise SourceError(f"{folder} belongs to somebody else; unpack {archive} yourself")
            for name, member in members.items():
                _extract(packed, member, folder / name)
    except (zipfile.BadZipFile, OSError, EOFError, zlib.error) as error:
        raise SourceError(f"cannot unpack {archive}: {error}; fetch the zip again") from error
    return folder


def _extract(packed: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """Write a member unless it is there; a reader never sees half of it."""
    if target.exists() and target.stat().st_size == member.file_size:
        return
    with (
        packed.open(member) as source,
        tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as part,
    ):
        shutil.copyfileobj(source, part)
    Path(part.name).replace(target)
