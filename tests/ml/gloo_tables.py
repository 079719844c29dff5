"""What two real processes do in the tests of the sharded table; imports little, to start fast."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ml.layers.sharded_embedding import ShardedEmbedding, initial_rows, refuse_sharded
from ml.layers.sharded_files import load_rows, save_rows
from ml.training.collectives import ProcessGroupReplicas
from ml.training.tables.rowwise_adagrad import RowwiseAdagrad
from ml.training.tables.touched_rows import sum_sparse

NUM_ROWS, WIDTH, SEED, STEPS = 11, 3, 7, 4
NAMES = ("weight", "sum")


def whole_table() -> Tensor:
    """Return the first rows of the table in one piece."""
    rows = torch.arange(NUM_ROWS).numpy()
    return torch.from_numpy(initial_rows(rows, width=WIDTH, seed=SEED, scale=0.05))


def ids_of(rank: int, step: int) -> Tensor:
    """Return a worker's ids: 4 x 2 with repeats within and across workers, or none at all."""
    if (rank, step) == (1, 2):
        return torch.empty(0, 2, dtype=torch.long)
    generator = torch.Generator().manual_seed(10 * step + rank)
    ids = torch.randint(0, NUM_ROWS, (4, 2), generator=generator)
    ids[0] = 5
    return ids


def loss_of(vectors: Tensor) -> Tensor:
    """Return a loss that is not linear, so that gradients depend on the rows."""
    weights = torch.arange(1.0, 1 + vectors[..., 0].numel()).reshape(*vectors.shape[:-1], 1)
    return (weights * vectors.square() + vectors).sum()


def gathered(table: ShardedEmbedding, own: Tensor) -> Tensor:
    """Return what all ranks hold, in the order of the whole table."""
    whole = torch.zeros(table.num_rows, *own.shape[1:])
    whole[table.rank :: table.size] = own.detach()
    dist.all_reduce(whole)
    return whole


def new_table(*, group: dist.ProcessGroup | None = None, seed: int = SEED) -> ShardedEmbedding:
    """Return a table of fresh rows."""
    return ShardedEmbedding(NUM_ROWS, WIDTH, group=group, seed=seed)


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    alone = [dist.new_group([member]) for member in range(2)][rank]
    assert isinstance(alone, dist.ProcessGroup)
    place = Path(folder)
    results = look_up() | train() | refusals(alone) | sparse_sum(rank)
    results |= reshard(place, rank, alone)
    torch.save(results, place / f"rank-{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@contextmanager
def counted_exchanges() -> Iterator[list[int]]:
    """Note how many entries this process gives to each exchange."""
    exchange, entries = dist.all_to_all_single, []

    def counted(output: Tensor, given: Tensor, *rest: Any, **named: Any) -> Any:
        entries.append(len(given))
        return exchange(output, given, *rest, **named)

    dist.all_to_all_single = counted
    try:
        yield entries
    finally:
        dist.all_to_all_single = exchange


def look_up() -> dict[str, Any]:
    """Look up both workers' ids of step 0 and add the gradients of both losses."""
    table = new_table()
    with counted_exchanges() as exchanged:
        vectors = table(ids_of(table.rank, 0))
        loss_of(vectors).backward()
    gradient = table.weight.grad
    assert gradient is not None
    return {
        "vectors": vectors.detach(),
        "exchanged": exchanged,
        "is_coalesced": gradient.is_sparse and gradient.is_coalesced(),
        "gradient_rows": gradient.coalesce().indices()[0].tolist(),
        "gradient": gathered(table, gradient.to_dense()),
    }


def train() -> dict[str, Any]:
    """Take a few steps; one worker has no ids in one of them."""
    table = new_table()
    optimizer = RowwiseAdagrad(table.parameters(), lr=0.1)
    for step in range(STEPS):
        optimizer.zero_grad()
        loss_of(table(ids_of(table.rank, step))).backward()
        optimizer.step()
    return {
        "trained": gathered(table, table.weight),
        "sums": gathered(table, optimizer.accumulator(table.weight)),
    }


def refusals(alone: dist.ProcessGroup) -> dict[str, Any]:
    """Ask HDET of a model with a table over both workers, and of one with a table in each."""
    try:
        refuse_sharded(nn.ModuleDict({"items_table": new_table()}), method="HDET")
    except ValueError as error:
        message = str(error)
    else:
        message = "not refused"
    refuse_sharded(nn.ModuleDict({"items_table": new_table(group=alone)}), method="HDET")
    return {"refusal": message}


def sparse_sum(rank: int) -> dict[str, Any]:
    """Add a replicated table's gradients over the workers, and those of workers without ids."""
    table = nn.Embedding(NUM_ROWS, WIDTH, sparse=True, _weight=whole_table())
    loss_of(table(ids_of(rank, 0))).backward()
    assert table.weight.grad is not None
    dense = table.weight.grad.to_dense()
    dist.all_reduce(dense)
    replicas = ProcessGroupReplicas()
    total = sum_sparse(table.weight.grad, replicas)
    nothing = torch.sparse_coo_tensor(
        torch.empty(1, 0, dtype=torch.long), torch.empty(0, WIDTH), (NUM_ROWS, WIDTH)
    )
    return {
        "sparse_sum": total.to_dense(),
        "dense_sum": dense,
        "sum_of_nothing": sum_sparse(nothing, replicas).coalesce().values().numel(),
    }


def reshard(folder: Path, rank: int, alone: dist.ProcessGroup) -> dict[str, Any]:
    """Save on two ranks, load and save on one, load on two again."""
    first = new_table()
    sums = torch.arange(rank, NUM_ROWS, 2).float()
    save_rows(folder / "two", first, extra={"sum": sums})
    dist.barrier()
    if rank == 0:
        single = new_table(group=alone, seed=1)
        single_sums = torch.zeros(NUM_ROWS)
        load_rows(folder / "two", single, extra={"sum": single_sums})
        save_rows(folder / "one", single, extra={"sum": single_sums})
    dist.barrier()
    again, again_sums = new_table(seed=2), torch.zeros_like(sums)
    load_rows(folder / "one", again, extra={"sum": again_sums})
    same = new_table(seed=3)
    load_rows(folder / "two", same)
    return {
        "read_by_as_many": gathered(same, same.weight),
        "resharded": gathered(again, again.weight),
        "resharded_sums": gathered(again, again_sums),
    }
