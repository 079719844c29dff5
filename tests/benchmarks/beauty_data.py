"""Amazon Beauty's sequences as arrays: item ids from 0, one array per user."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FILE = "Beauty_timedelta.txt"


def beauty_file() -> Path:
    """Return the file of sequences below RANKLAKE_DATA.

    Raises:
        FileNotFoundError: If it is not there.
    """
    default = Path(__file__).parents[3] / "shared" / "data"
    file = Path(os.environ.get("RANKLAKE_DATA") or default) / "amazon-beauty" / FILE
    if not file.exists():
        raise FileNotFoundError(f"no {file}: set RANKLAKE_DATA to the folder that holds it")
    return file


def read_sequences(file: Path) -> tuple[list[NDArray[np.int64]], int]:
    """Read `user item item ... <TAB> gap gap ...`: the items of each user, and how many there are.

    Items are numbered from 0 by their first appearance in the file.

    Raises:
        ValueError: If a line has no items.
    """
    numbers: dict[str, int] = {}
    sequences = []
    for place, line in enumerate(file.read_text().splitlines(), start=1):
        _, *items = line.split("\t")[0].split()
        if not items:
            raise ValueError(f"line {place} of {file} has no items; fetch the file again")
        sequences.append(np.array([numbers.setdefault(item, len(numbers)) for item in items]))
    return sequences, len(numbers)
