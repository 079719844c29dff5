"""What does a table cut over two workers cost, and what does it save?

make bench BENCH=sharded-tables [ARGS="--rows 100000"]

A table of 10^7 rows, 16 wide, on two processes over gloo, each with batches of 4096 x 8 ids by
Zipf's law (row 0 is the most frequent). A step is look-up, backward pass and row-wise Adagrad.
The rivals hold the table in one piece (nn.Embedding, sparse gradient, the same optimiser) in one
process: `one_batch` steps on one worker's batch with one thread, as a worker does; `both_batches`
on both workers', so that its table is, up to rounding, theirs after every step. The latter also
runs as `two_threads`, so as to have the workers' cores; `over_both_batches` is the sharded step
over the faster of the two. The ways take turns; seconds are medians. `cpu_seconds` are those of one
process, with the threads that exchange: on a busy machine they say more than the wall clock.

Memory is what a process has grown by, at its peak, from before the table is made until after a few
steps, against a process that holds the whole table.

The limit of a step is what the connection asks: the bytes that a worker sends (ids to owners, rows
to those who asked, gradients to owners) over the bandwidth of a large exchange between the same two
processes, plus four exchanges' latency; `limit_share` is limit over measured step. `busiest_owner`
is the most rows asked of one worker over the mean; `busiest_owner_blocks` is what contiguous blocks
of rows would have given.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from torch.multiprocessing.spawn import spawn

from tests.benchmarks.result_line import Goal, print_result
from tests.benchmarks.sharded_tables_child import (
    BATCHES_FILE,
    WARM_UP,
    WORKERS,
    Plan,
    replicated_child,
    worker,
)

FULL_ROWS = 10_000_000
EXCHANGES = 4
RIVALS = ("one_batch", "both_batches", "two_threads")
ID_BYTES, FLOAT_BYTES = 8, 4


def zipf_batches(plan: Plan) -> np.ndarray:
    """Return ids of the whole run, int64 [batches, workers, examples, ids]; row 0 is the hottest.

    The chance of row k is proportional to (k + 1) ** -skew.
    """
    cumulative = np.cumsum(np.arange(1, plan.rows + 1, dtype=np.float64) ** -plan.skew)
    shape = plan.num_batches, WORKERS, plan.examples, plan.ids
    drawn = np.random.default_rng(0).random(shape) * cumulative[-1]
    return np.searchsorted(cumulative, drawn, side="right").astype(np.int64)


def traffic(batches: np.ndarray, plan: Plan) -> dict[str, float]:
    """Return what a step exchanges, as means over the timed batches of the busier worker."""
    block = -(-plan.rows // WORKERS)
    sent, busiest, busiest_blocks, distinct = [], [], [], []
    for both in batches[WARM_UP:]:
        asked = [np.unique(ids) for ids in both]
        distinct += [len(rows) / both[0].size for rows in asked]
        by_owner = np.stack([np.bincount(rows % WORKERS, minlength=WORKERS) for rows in asked])
        by_block = np.stack([np.bincount(rows // block, minlength=WORKERS) for rows in asked])
        remote = by_owner - np.diag(np.diag(by_owner))
        vector = plan.width * FLOAT_BYTES
        # A worker sends ids and gradients for what it asks, vectors for what is asked of it.
        sent.append((remote.sum(1) * (ID_BYTES + vector) + remote.sum(0) * vector).max())
        for found, counts in ((busiest, by_owner), (busiest_blocks, by_block)):
            found.append(counts.sum(0).max() / counts.sum(0).mean())
    return {
        "distinct_ids_share": float(np.mean(distinct)),
        "step_bytes_sent": float(np.mean(sent)),
        "busiest_owner": float(np.mean(busiest)),
        "busiest_owner_blocks": float(np.mean(busiest_blocks)),
    }


def measure(plan: Plan) -> dict[str, float | None]:
    """Run the processes and return the figures."""
    batches = zipf_batches(plan)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / BATCHES_FILE, batches)
        spawn(replicated_child, args=(name, plan), nprocs=1)
        spawn(worker, args=(name, plan), nprocs=WORKERS)
        whole, first, second = (
            json.loads((folder / f"{part}.json").read_text())
            for part in ("replicated", "rank-0", "rank-1")
        )
    figures = {
        "table_bytes": float(plan.rows * plan.width * FLOAT_BYTES),
        "worker_table_bytes": max(first["weight_bytes"], second["weight_bytes"]),
        "replicated_growth_bytes": whole["growth_bytes"],
        "worker_growth_bytes": max(first["growth_bytes"], second["growth_bytes"]),
        "replicated_peak_bytes": whole["peak_bytes"],
        "worker_peak_bytes": max(first["peak_bytes"], second["peak_bytes"]),
        "create_cpu_seconds": max(first["create_cpu_seconds"], second["create_cpu_seconds"]),
        **traffic(batches, plan),
        "bandwidth_bytes_per_second": first["bandwidth_bytes_per_second"],
        "latency_seconds": first["latency_seconds"],
        "step_seconds": max(first["sharded_step_seconds"], second["sharded_step_seconds"]),
        "step_cpu_seconds": max(
            first["sharded_step_cpu_seconds"], second["sharded_step_cpu_seconds"]
        ),
        **{name: value for name, value in first.items() if name.startswith(RIVALS)},
        "largest_difference": first["largest_difference"],
        "largest_move": first["largest_move"],
    }
    step = figures["step_seconds"]
    limit = figures["step_bytes_sent"] / figures["bandwidth_bytes_per_second"]
    limit += EXCHANGES * figures["latency_seconds"]
    return figures | {
        "table_share": figures["worker_table_bytes"] / figures["table_bytes"],
        "growth_share": figures["worker_growth_bytes"] / figures["replicated_growth_bytes"],
        "limit_seconds": limit,
        "limit_share": limit / step,
        "over_one_batch": step / figures["one_batch_step_seconds"],
        "over_both_batches": step
        / min(figures["both_batches_step_seconds"], figures["two_threads_step_seconds"]),
    }


def goals_of(plan: Plan) -> tuple[Goal, ...]:
    """Return the goals; in a small table buffers outweigh the rows, so growth is not judged."""
    goals = (
        Goal(figure="table_share", op="<=", limit=0.5),
        Goal(figure="largest_difference", op="<=", limit=1e-5),
    )
    growth = Goal(figure="growth_share", op="<=", limit=0.6)
    return (*goals, growth) if plan.rows >= FULL_ROWS else goals


def main() -> int:
    """Run the benchmark; return 1 if a goal is missed."""
    default = Plan()
    parser = argparse.ArgumentParser(prog="make bench BENCH=sharded-tables", description=__doc__)
    parser.add_argument("--rows", type=int, default=default.rows)
    parser.add_argument("--width", type=int, default=default.width)
    parser.add_argument("--examples", type=int, default=default.examples)
    parser.add_argument("--rounds", type=int, default=default.rounds)
    parser.add_argument("--steps", type=int, default=default.steps)
    plan = Plan(**vars(parser.parse_args()))
    return 0 if print_result("sharded-tables", measure(plan), goals=goals_of(plan)) else 1


if __name__ == "__main__":
    sys.exit(main())
