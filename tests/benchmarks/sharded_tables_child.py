"""The processes of the sharded-tables benchmark: two workers that share a table, and a rival."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ml.layers.sharded_embedding import ShardedEmbedding, initial_rows
from ml.training.tables.rowwise_adagrad import RowwiseAdagrad

WORKERS = 2
WARM_UP = 3
LEARNING_RATE = 0.05
MESSAGE_BYTES = 1 << 25
BATCHES_FILE = "batches.npy"
Step = Callable[[int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Size the measurement.

    Attributes:
        rows: Rows of the table.
        width: Width of the vectors.
        examples: Examples of one worker's batch.
        ids: Ids of one example.
        skew: Exponent of Zipf's law.
        rounds: Timed rounds, each of all ways.
        steps: Steps of a way in a round, each on a batch of its own.
    """

    rows: int = 10_000_000
    width: int = 16
    examples: int = 4096
    ids: int = 8
    skew: float = 1.05
    rounds: int = 5
    steps: int = 8

    @property
    def num_batches(self) -> int:
        """Return the batches that each way sees."""
        return WARM_UP + self.rounds * self.steps


def memory_bytes(name: str) -> float:
    """Return a figure of this process's memory: VmRSS now, VmHWM at its highest."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


def new_step(table: nn.Module, batches: Tensor, *, width: int) -> Step:
    """Return a function that looks up one batch, goes back and updates.

    Args:
        table: The table.
        batches: Ids, [number of batches, ...].
        width: Width of the vectors.
    """
    optimizer = RowwiseAdagrad(table.parameters(), lr=LEARNING_RATE)
    directions = direction_of(batches.shape[-2:], width=width)

    def step(number: int) -> None:
        optimizer.zero_grad()
        vectors = table(batches[number])
        vectors.backward(directions.expand_as(vectors))
        optimizer.step()

    return step


def direction_of(shape: tuple[int, ...], *, width: int) -> Tensor:
    """Return the gradient that arrives at one worker's vectors, the same for all batches."""
    return torch.randn(*shape, width, generator=torch.Generator().manual_seed(1))


def plain_table(plan: Plan, *, group: dist.ProcessGroup | None = None) -> nn.Embedding:
    """Return the table in one piece, with the first rows of the sharded one."""
    whole = ShardedEmbedding(plan.rows, plan.width, group=group).weight.detach()
    return nn.Embedding(plan.rows, plan.width, sparse=True, _weight=whole)


def replicated_child(_: int, folder: str, plan: Plan) -> None:
    """Measure the memory of one worker that holds the whole table."""
    torch.set_num_threads(1)
    batches = _batches(folder)
    _meet_torch(plan)
    before = memory_bytes("VmRSS")
    step = new_step(plain_table(plan), batches[:, 0], width=plan.width)
    for number in range(WARM_UP):
        step(number)
    figures = {
        "growth_bytes": memory_bytes("VmHWM") - before,
        "peak_bytes": memory_bytes("VmHWM"),
    }
    _write(folder, "replicated", figures)


def worker(rank: int, folder: str, plan: Plan) -> None:
    """Measure a worker's memory and steps; rank 0 runs the rivals while the other waits."""
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=WORKERS)
    alone = [dist.new_group([member]) for member in range(WORKERS)][rank]
    assert isinstance(alone, dist.ProcessGroup)
    batches = _batches(folder)
    _meet_torch(plan, group=alone)
    before, started = memory_bytes("VmRSS"), time.process_time()
    table = ShardedEmbedding(plan.rows, plan.width)
    figures = {"create_cpu_seconds": time.process_time() - started}
    step = new_step(table, batches[:, rank], width=plan.width)
    for number in range(WARM_UP):
        step(number)
    figures["growth_bytes"] = memory_bytes("VmHWM") - before
    figures["peak_bytes"] = memory_bytes("VmHWM")
    figures["weight_bytes"] = float(table.weight.nbytes)
    figures |= _link()
    ways: dict[str, tuple[Step, int]] = {"sharded": (step, 1)}
    whole = plain_table(plan, group=alone) if rank == 0 else nn.Embedding(1, 1)
    if rank == 0:
        one = new_step(plain_table(plan, group=alone), batches[:, 0], width=plan.width)
        both = new_step(whole, batches, width=plan.width)
        threads = new_step(plain_table(plan, group=alone), batches, width=plan.width)
        ways |= {
            "one_batch": (one, 1),
            "both_batches": (both, 1),
            "two_threads": (threads, WORKERS),
        }
        for number in range(WARM_UP):
            for rival, _ in list(ways.values())[1:]:
                rival(number)
    dist.barrier()
    figures |= _timed(ways, plan)
    if rank == 0:
        figures["largest_difference"] = _distance(table.weight, whole.weight[::WORKERS])
        figures["largest_move"] = _largest_move(table, plan)
    _write(folder, f"rank-{rank}", figures)
    dist.barrier()
    dist.destroy_process_group()


def _timed(ways: dict[str, tuple[Step, int]], plan: Plan) -> dict[str, float]:
    """Return the median over the rounds of each way's seconds per step, by both clocks.

    Args:
        ways: Steps by name, and the threads that each may use; the sharded one is first, so that
            the workers start it together.
        plan: Rounds and steps.
    """
    seconds: dict[str, list[float]] = {}
    for turn in range(plan.rounds):
        first = WARM_UP + turn * plan.steps
        for name, (step, threads) in ways.items():
            torch.set_num_threads(threads)
            started = time.perf_counter(), time.process_time()
            for number in range(first, first + plan.steps):
                step(number)
            took = time.perf_counter() - started[0], time.process_time() - started[1]
            for clock, value in zip(("seconds", "cpu_seconds"), took, strict=True):
                seconds.setdefault(f"{name}_step_{clock}", []).append(value / plan.steps)
        torch.set_num_threads(1)
        dist.barrier()
    return {name: float(np.median(found)) for name, found in seconds.items()}


def _link() -> dict[str, float]:
    """Return what the connection carries per second, and what an exchange of one number takes."""
    large, small = torch.zeros(WORKERS * MESSAGE_BYTES // 4), torch.zeros(WORKERS)
    figures = {}
    for name, message, repeats in (("large", large, 8), ("small", small, 200)):
        received, seconds = torch.empty_like(message), []
        for _ in range(repeats):
            started = time.perf_counter()
            dist.all_to_all_single(received, message)
            seconds.append(time.perf_counter() - started)
        figures[name] = float(np.median(seconds))
    sent_bytes = MESSAGE_BYTES * (WORKERS - 1)
    return {
        "bandwidth_bytes_per_second": sent_bytes / figures["large"],
        "latency_seconds": figures["small"],
    }


def _meet_torch(plan: Plan, *, group: dist.ProcessGroup | None = None) -> None:
    """Take a step of a small table, so that what torch loads on first use is there before."""
    table = ShardedEmbedding(8, plan.width, group=group)
    new_step(table, torch.zeros(1, 1, 1, dtype=torch.long), width=plan.width)(0)


def _largest_move(table: ShardedEmbedding, plan: Plan) -> float:
    """Return how far training has moved any coordinate of rank 0's first rows, the hottest."""
    count = min(1000, len(table.weight))
    rows = np.arange(count) * table.size
    start = torch.from_numpy(initial_rows(rows, width=plan.width, seed=0, scale=0.05))
    return _distance(table.weight[:count], start)


def _distance(first: Tensor, second: Tensor) -> float:
    """Return the largest difference of any coordinate."""
    return float((first.detach() - second.detach()).abs().max())


def _batches(folder: str) -> Tensor:
    """Return all ids, [batches, workers, examples, ids]."""
    return torch.from_numpy(np.load(Path(folder) / BATCHES_FILE))


def _write(folder: str, name: str, figures: dict[str, float]) -> None:
    """Leave figures for the parent."""
    (Path(folder) / f"{name}.json").write_text(json.dumps(figures))
