"""Does a giant user, or a bot, cost time or memory? ranklake over a skewed log and an even one.

make bench BENCH=skew [ARGS="--events 5000000"]

The job is that of tables.py, over two logs of the same size: an even one (all users and all items
equally active) and a skewed one (users by a Zipf law of exponent 0.8 and items of 1.0, one user
with 1 % of all events and one bot with 5 %). Both run within 8 GiB, the whole process tree
counted, as described there, and their rows are compared with DuckDB's of the same log.
"""

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from tests.benchmarks.result_line import Goal, print_result
from tests.benchmarks.tables_log import LogPlan, make_log
from tests.benchmarks.tables_run import measure, open_bench

EVENTS = 20_000_000
LOGS = ("even", "skewed")
GOALS = (
    Goal(figure="even_peak_gib", op="<=", limit=8.0),
    Goal(figure="skewed_peak_gib", op="<=", limit=8.0),
    Goal(figure="unequal_outputs", op="<=", limit=0.0),
)


def figures_of(results: Mapping[tuple[str, str], Mapping[str, Any]]) -> dict[str, float | None]:
    """Return the figures of the cells; null where ranklake did not end.

    Args:
        results: Cells by engine ("ranklake" or "duckdb") and log.
    """
    figures: dict[str, float | None] = {}
    for log in LOGS:
        cell = results["ranklake", log]
        is_done = cell["seconds"] is not None
        figures[f"{log}_seconds"] = cell["seconds"]
        figures[f"{log}_peak_gib"] = cell["peak_gib"] if is_done else None
    even, skewed = figures["even_seconds"], figures["skewed_seconds"]
    figures["skewed_over_even"] = skewed / even if even and skewed else None
    hashes = [{results[e, log]["hash"] for e in ("ranklake", "duckdb")} for log in LOGS]
    figures["unequal_outputs"] = float(sum(len(found) - 1 for found in hashes))
    return figures


def main() -> int:
    """Run the benchmark; return 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog="make bench BENCH=skew", description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--fresh", action="store_true", help="forget an unfinished run")
    asked = parser.parse_args()
    bench = open_bench("skew", fresh=asked.fresh)
    results = {}
    for shape in LOGS:
        log = LogPlan(events=asked.events, shape=shape)
        make_log(log, bench.logs)
        for engine in ("duckdb", "ranklake"):
            results[engine, shape] = measure(bench, engine, log, repeats=1)
    bench.cells.finish()
    return 0 if print_result("skew", figures_of(results), goals=GOALS) else 1


if __name__ == "__main__":
    sys.exit(main())
