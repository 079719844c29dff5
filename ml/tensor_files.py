"""Write tensors to a file; a disk that is full is an OSError here as everywhere."""

import errno
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

# What an OSError says where nothing more can be written: no room, or none for this user.
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


def write_tensors(
    tensors: Mapping[str, Tensor], path: Path, *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file.

    Args:
        tensors: Contiguous tensors by name.
        path: The file.
        metadata: Texts to keep in its header.

    Raises:
        OSError: If it cannot be written; safetensors has an error of its own for that.
    """
    try:
        save_file(dict(tensors), path, metadata=None if metadata is None else dict(metadata))
    except SafetensorError as error:
        if number := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(number[1]), str(error), str(path)) from error
        raise
