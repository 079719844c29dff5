"""Checkpoints of models with sharded tables: every replica writes its rows into one folder.

The folder appears whole or not at all, on a disk that all replicas reach. What fails on one of
them fails on all, so that they go on, or end, together.
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from ml.layers.sharded_embedding import ShardedEmbedding
from ml.layers.sharded_files import join_rows, load_rows, save_rows
from ml.training.checkpoint import TABLES_FOLDER, appear, flush, read_weights
from ml.training.collectives import Collectives
from ml.training.tables.optimizer import TableOptimizer
from ml.training.tables.sparse_tables import Tables
from ml.training.together import together

_ACCUMULATORS = "sum"
# Of the state dict of a ShardedEmbedding: its rows and width instead of its weight.
_SHAPE = "._extra_state"


def save_together(
    folder: Path,
    *,
    first: Callable[[Path], None],
    every: Callable[[Path], None],
    replicas: Collectives,
) -> None:
    """Write one checkpoint folder by all replicas; all of them call it with the same folder.

    Args:
        folder: Where it shall appear.
        first: Writes what replica 0 alone writes, into the folder that it is given.
        every: Writes what each replica writes.
        replicas: The replicas.

    Raises:
        OSError: If a replica cannot write, on all replicas; what was there before stays.
    """
    part = folder.parent / f".{folder.name}-shared"
    try:
        together(lambda: _begin(part), replicas, only_first=True)
        together(lambda: every(part), replicas)
        together(lambda: first(part), replicas, only_first=True)
        together(lambda: appear(part, folder), replicas, only_first=True)
    except BaseException:
        if replicas.rank == 0:
            shutil.rmtree(part, ignore_errors=True)
        raise


def _begin(part: Path) -> None:
    """Make an empty folder."""
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)


def save_tables(folder: Path, tables: Tables, optimizer: TableOptimizer) -> None:
    """Write this replica's rows of all sharded tables, of trained ones with their accumulators.

    Raises:
        OSError: If they cannot be written.
    """
    for name, table in tables.sharded.items():
        extra = _accumulators(table, optimizer)
        flush([save_rows(folder / TABLES_FOLDER / name, table, extra=extra)])


def load_tables(folder: Path, tables: Tables, optimizer: TableOptimizer) -> None:
    """Read this replica's rows and accumulators, from a checkpoint of any number of replicas.

    Raises:
        FileNotFoundError: If rows of some replica are missing.
        ValueError: If the checkpoint is of another table.
    """
    for name, table in tables.sharded.items():
        extra = _accumulators(table, optimizer)
        load_rows(folder / TABLES_FOLDER / name, table, extra=extra)


def _accumulators(table: ShardedEmbedding, optimizer: TableOptimizer) -> dict[str, Tensor]:
    """Return what a table is saved with; nothing if it is frozen."""
    is_trained = table.weight.requires_grad
    return {_ACCUMULATORS: optimizer.accumulator(table.weight)} if is_trained else {}


def whole_weights(folder: Path) -> dict[str, Tensor]:
    """Return weights and buffers by name, each sharded table as a plain one, `<name>.weight`.

    So a model with plain tables in their place serves what was trained with sharded ones. The
    limit is this process's memory, which must hold every table whole: 4 bytes x rows x width.

    Raises:
        FileNotFoundError: If the folder holds no weights, or not all rows.
    """
    weights = read_weights(folder)
    for path in sorted((folder / TABLES_FOLDER).glob("*")):
        del weights[path.name + _SHAPE]
        weights[f"{path.name}.weight"] = join_rows(path)
    return weights


def without_shards(optimizer: Optimizer, tables: Tables) -> dict[str, Any]:
    """Return an optimiser's state dict without the state of sharded tables."""
    plain = optimizer.state_dict()
    shards = {id(weight) for weight in tables.shards}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    states: Mapping[int, Any] = plain["state"]
    kept = {i: value for i, value in states.items() if id(parameters[i]) not in shards}
    return {**plain, "state": kept}
