"""Write a sharded table's rows to one file per rank, and read them with any number of ranks.

Give every checkpoint a folder of its own: files of two moments in one folder would make a table
that never was. A checkpoint is complete when all ranks have returned, so let them meet (a barrier)
before something that says "complete" is written beside the files.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ml.layers.sharded_embedding import ShardedEmbedding
from ml.tensor_files import write_tensors

_WEIGHT = "weight"
# Rows read at once: 16 MiB of a table 16 wide.
_CHUNK_ROWS = 1 << 18


def save_rows(
    folder: Path, table: ShardedEmbedding, *, extra: Mapping[str, Tensor] | None = None
) -> Path:
    """Write this rank's rows; the file appears whole or not at all.

    Args:
        folder: Folder of this table and this moment, the same on all ranks.
        table: The table.
        extra: More tensors by name with one entry per row of this rank, such as the optimiser's
            accumulators.

    Returns:
        The file.

    Raises:
        OSError: If it cannot be written.
        ValueError: If a further tensor does not have this rank's rows.
    """
    tensors = _row_tensors(table, extra)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _file_name(table.rank, table.size)
    part = path.with_suffix(".part")
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        write_tensors(plain, part, metadata={"num_rows": str(table.num_rows)})
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def load_rows(
    folder: Path, table: ShardedEmbedding, *, extra: Mapping[str, Tensor] | None = None
) -> None:
    """Read this rank's rows in place, from files of any number of ranks.

    Files that hold none of this rank's rows are not opened, the others are read in slices.

    Args:
        folder: Where `save_rows` wrote.
        table: The table, of the same rows and width.
        extra: The further tensors, already of this rank's rows; they are filled.

    Raises:
        FileNotFoundError: If files of some ranks are missing.
        ValueError: If the folder holds two tables, or the table or a tensor is another one.
    """
    tensors = _row_tensors(table, extra)
    size = _saved_size(folder)
    for rank in range(size):
        if (rank - table.rank) % math.gcd(size, table.size) == 0:
            _read_file(folder / _file_name(rank, size), table, (rank, size), tensors)
    table.rows_loaded()


def join_rows(folder: Path) -> Tensor:
    """Return the whole weight that `save_rows` wrote, in one piece, float32 [rows, D].

    Raises:
        FileNotFoundError: If files of some ranks are missing.
        ValueError: If the folder holds two tables.
    """
    size = _saved_size(folder)
    whole = torch.empty(0)
    for rank in range(size):
        with safe_open(folder / _file_name(rank, size), framework="pt") as file:
            rows = file.get_tensor(_WEIGHT)
            if rank == 0:
                whole = rows.new_empty((_num_rows(file), *rows.shape[1:]))
            whole[rank::size] = rows
    return whole


def copy_rows(folder: Path, target: Path) -> None:
    """Copy what `save_rows` wrote without the further tensors, into a new folder.

    Raises:
        FileNotFoundError: If files of some ranks are missing.
        ValueError: If the folder holds two tables.
        OSError: If it cannot be written.
    """
    size = _saved_size(folder)
    target.mkdir(parents=True)
    for name in (_file_name(rank, size) for rank in range(size)):
        with safe_open(folder / name, framework="pt") as file:
            write_tensors(
                {_WEIGHT: file.get_tensor(_WEIGHT)}, target / name, metadata=file.metadata()
            )


def _row_tensors(table: ShardedEmbedding, extra: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """Return the weight and the further tensors by name.

    Raises:
        ValueError: If one does not have this rank's rows.
    """
    tensors = {_WEIGHT: table.weight, **(extra or {})}
    for name, tensor in tensors.items():
        if not tensor.ndim or len(tensor) != len(table.weight):
            raise ValueError(
                f"{name!r} has the shape {list(tensor.shape)}, rank {table.rank} holds"
                f" {len(table.weight)} rows"
            )
    return tensors


def _file_name(rank: int, size: int) -> str:
    """Return the name of one rank's file."""
    return f"rows-{rank:05d}-of-{size:05d}.safetensors"


def _saved_size(folder: Path) -> int:
    """Return the number of ranks that wrote into a folder.

    Raises:
        FileNotFoundError: If files of some ranks are missing.
        ValueError: If two numbers of ranks wrote.
    """
    names = {path.name for path in folder.glob("rows-*-of-*.safetensors")}
    sizes = {int(name.split("-")[3].split(".")[0]) for name in names}
    if len(sizes) > 1:
        raise ValueError(f"{folder} holds tables of {sorted(sizes)} ranks; keep one of them")
    missing = {_file_name(rank, size) for size in sizes for rank in range(size)} - names
    if missing or not sizes:
        raise FileNotFoundError(
            f"{folder} lacks {sorted(missing) or 'a table'}; take a checkpoint that all ranks wrote"
        )
    return sizes.pop()


def _num_rows(file: Any) -> int:
    """Return the rows of the whole table that an open file is a part of, -1 if it does not say."""
    return int((file.metadata() or {}).get("num_rows", -1))


def _read_file(
    path: Path, table: ShardedEmbedding, saved: tuple[int, int], tensors: Mapping[str, Tensor]
) -> None:
    """Copy the rows that this rank holds out of the file of one saved (rank, size).

    Raises:
        ValueError: If the file is of another table.
    """
    rank, size = saved
    with safe_open(path, framework="pt") as file, torch.no_grad():
        names = set(file.keys())
        num_rows = _num_rows(file)
        if num_rows != table.num_rows or not set(tensors) <= names:
            raise ValueError(
                f"{path} holds {sorted(names)} of {num_rows} rows, asked for are {sorted(tensors)}"
                f" of {table.num_rows}"
            )
        for name, tensor in tensors.items():
            source = file.get_slice(name)
            count, *shape = source.get_shape()
            if shape != list(tensor.shape[1:]):
                raise ValueError(f"{name!r} of {path} has rows of {shape}, not {tensor.shape[1:]}")
            for start in range(0, count, _CHUNK_ROWS):
                stop = min(start + _CHUNK_ROWS, count)
                rows = torch.arange(start, stop) * size + rank
                mine = rows % table.size == table.rank
                places = (rows[mine] // table.size).to(tensor.device)
                tensor[places] = source[start:stop][mine].to(tensor)
