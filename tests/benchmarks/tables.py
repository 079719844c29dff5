"""One job over a raw log: ranklake beside DuckDB, Polars and a straightforward PySpark script.

make bench BENCH=tables [ARGS="--events 1000000 5000000 --engines duckdb ranklake --fresh"]

The job, for every engine the same (a log of tables_log.py: zstd Parquet, 100 days of equal size,
5 % of the rows delivered again, log-normal users, Zipf items; a catalogue in Parquet):

1. keep one row per (user, event id), the greatest by (arrival day, event time, action bits); no two
   copies agree in these and differ in their item;
2. join the catalogue: item_index and category_index, 0 for an item that it lacks;
3. number the visits of each user: a new one begins after more than 30 minutes without an event,
   and the oldest event of a row is of visit 1;
4. keep each user's newest 200 events by (event time, event id), oldest first, as aligned arrays:
   item_index, category_index, event_time, action_bits, session_index, with user_id and num_events;
5. write zstd Parquet (ranklake: a Delta table, by the lakehouse, as its assets do).

One hash of all rows (tables_output.py), of any order of rows but of one order within the arrays, is
computed in the same way over the files of every engine; each differing output counts.

Each engine runs in a process of its own, pinned to two cores, with 8 GiB for the whole process
tree: its proportional set sizes are summed every 0.5 s, and it is killed above that. An engine out
of memory is printed as such, and its time is null. What each was told:

- duckdb: 2 threads, memory_limit 6 GiB, the rest spilled to a temporary directory; the whole query
  runs out of these at 10M events, so above 5M the users are first shared out among files of some
  5M events each, in the measured time, and the query is asked file by file;
- polars: 2 threads, lazy, the streaming engine;
- pyspark: local[2], 6 GiB heap, adaptive execution, as many shuffle partitions as ranklake;
- ranklake: its own session, 4 GiB heap, the rest for two Python workers.

The clock runs from the call to the files written, after a warm-up on a tiny log in the same
process: the median of three runs up to 20M events, one run at 100M. An increment is the last of the
100 days, in a process that has taken in another day just before: its rows are read, sorted into a
segment and committed, and the segment is held to its suite by Great Expectations. The sequences are
then all segments joined on read; that costs about as much as a rebuild and is printed beside.
Their hash must be that of the full rebuild. A run that died goes on where it stopped, as long as
the code is the same; --fresh begins anew. 100M events need some 15 GB of disk.

Where the time goes is printed last, stage by stage, from Spark's event log: tasks' seconds, sort,
shuffle write, Python, bytes, and the least time that these bytes need at the bandwidths measured in
the same run. At 20M events two fifths of the time go to the scan, the join and the shuffle's write,
three fifths to the shuffle's read, the cut in Python and the write of the files; the sort by the
user's hash is some 2 % of these, where the sort by user was a quarter. By bytes over bandwidth
both stages together need less than a second: what costs is processor time for each row, not bytes.
A profile of the JVM's samples (5M events) gives 18 % to walking the sorted rows, which lie all over
memory, 12 % to strings out of Parquet, 10 % to looking up items for the join, 13 % to writing
Parquet, the rest to copying rows into the shuffle, into Arrow and back.

What helped, in seconds at 20M (from 38 to 40): one sort by a 64-bit hash of the user, which Spark
sorts by its digits, instead of by the user; times made from moments after the shuffle; batches of
65,536 rows to Python instead of 10,000 (the cut's processor time fell from 16 to 6 s, and to 5 with
sorts of one number); no cache and no fingerprint before a table's first write (25.9); and no
measuring of a batch's bytes after each row (22 to 24). What did not help, at 5M events: the other
shuffle writer (a fifth slower), a shuffle without compression (level), sockets of the file system
to Python, buffers of 1 MiB, columns off the heap (all level).

The whole job writes into an empty lake, as the goals ask. Over a table that is there, an overwrite
first compares: it holds the rows and hashes them, 4 s more at 20M when that was last measured by
itself, and writes nothing if they are the same.

A user's events are in one Arrow table at a time. A user of 5M events (the bot of a skewed log of
100M) adds some 0.9 GiB to one worker, which the heap above leaves room for.
"""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tests.benchmarks.result_line import Goal, print_result
from tests.benchmarks.tables_log import LogPlan, make_log
from tests.benchmarks.tables_run import Bench, measure, open_bench
from tests.benchmarks.tables_stages import bandwidths, print_stages

SIZES = (1_000_000, 5_000_000, 20_000_000, 100_000_000)
ENGINES = ("duckdb", "polars", "pyspark", "ranklake")
GOALS = (
    Goal(figure="ranklake_over_pyspark_20m", op="<=", limit=0.5),
    Goal(figure="ranklake_over_duckdb_20m", op="<=", limit=2.0),
    Goal(figure="ranklake_growth_exponent", op="<=", limit=1.05),
    Goal(figure="ranklake_over_duckdb_100m", op="<=", limit=1.0),
    Goal(figure="increment_over_rebuild_100m", op="<=", limit=0.05),
    Goal(figure="ranklake_peak_gib_100m", op="<=", limit=8.0),
    Goal(figure="unequal_outputs", op="<=", limit=0.0),
)
_REPEATED_TO = 20_000_000
_GROWTH_FROM = 5_000_000

Results = Mapping[tuple[str, int], Mapping[str, Any]]


def size_name(events: int) -> str:
    """Return 20_000_000 as 20m; below a million as it is."""
    return f"{events // 1_000_000}m" if events % 1_000_000 == 0 else str(events)


def figures_of(results: Results, sizes: Sequence[int]) -> dict[str, float | None]:
    """Return the figures of the cells by name; null where a cell has no time.

    Args:
        results: Cells by engine and size; the increments are those of "increment".
        sizes: Events of the logs, ascending.
    """
    figures: dict[str, float | None] = {}
    for (engine, events), cell in results.items():
        figures[f"{engine}_seconds_{size_name(events)}"] = cell["seconds"]
        peak = None if cell["seconds"] is None else cell["peak_gib"]
        figures[f"{engine}_peak_gib_{size_name(events)}"] = peak
    for goal in GOALS:
        figures.setdefault(goal.figure, None)
    for events in sizes:
        size = size_name(events)
        for rival in ("pyspark", "duckdb"):
            ratio = _ratio(results, ("ranklake", rival), events)
            figures[f"ranklake_over_{rival}_{size}"] = ratio
        ratio = _ratio(results, ("increment", "ranklake"), events)
        figures[f"increment_over_rebuild_{size}"] = ratio
        increment = results.get(("increment", events), {})
        for name in ("read_seconds", "written_bytes", "segment_bytes", "touched_fraction"):
            figures[f"increment_{name}_{size}"] = increment.get(name)
        if increment.get("broken"):
            figures["increment_rules_broken"] = float(len(increment["broken"]))
    figures["ranklake_growth_exponent"] = _exponent(results, sizes)
    figures["unequal_outputs"] = float(_unequal(results, sizes))
    return figures


def _ratio(results: Results, pair: tuple[str, str], events: int) -> float | None:
    over, under = (results.get((engine, events), {}).get("seconds") for engine in pair)
    return None if over is None or under is None else over / under


def _exponent(results: Results, sizes: Sequence[int]) -> float | None:
    """Fit seconds = a * events ** b from `_GROWTH_FROM` events on; return b."""
    wanted = [events for events in sizes if events >= _GROWTH_FROM]
    seconds = [results.get(("ranklake", events), {}).get("seconds") for events in wanted]
    known = [(math.log(n), math.log(s)) for n, s in zip(wanted, seconds, strict=True) if s]
    if len(known) < len(SIZES) - 1:
        return None
    mean_x, mean_y = (sum(values) / len(known) for values in zip(*known, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in known)
    return sum((x - mean_x) * (y - mean_y) for x, y in known) / spread


def _unequal(results: Results, sizes: Sequence[int]) -> int:
    """Count the outputs that differ from another one of the same log."""
    hashes = [
        {cell["hash"] for (_, n), cell in results.items() if n == events and cell["hash"]}
        for events in sizes
    ]
    return sum(max(0, len(found) - 1) for found in hashes)


def hold(bench: Bench, sizes: Sequence[int], engines: Sequence[str]) -> Results:
    """Measure every engine over every size, small ones first.

    Args:
        bench: The benchmark.
        sizes: Events of the logs, ascending.
        engines: Names out of `ENGINES`.
    """
    results: dict[tuple[str, int], Mapping[str, Any]] = {}
    for events in sizes:
        log = LogPlan(events=events)
        make_log(log, bench.logs)
        repeats = 3 if events <= _REPEATED_TO else 1
        for engine in engines:
            results[engine, events] = measure(bench, engine, log, repeats=repeats)
        if "ranklake" in engines:
            results["increment", events] = measure(bench, "increment", log, repeats=1)
    return results


def _print_table(results: Results, sizes: Sequence[int]) -> None:
    """Print seconds and peak memory, a row per engine and a column per size."""
    engines = list(dict.fromkeys(engine for engine, _ in results))
    print(f"{'':<12}" + "".join(f"{size_name(events):>22}" for events in sizes))
    for engine in engines:
        cells = (results[engine, events] for events in sizes)
        print(f"{engine:<12}" + "".join(f"{_shown(cell):>22}" for cell in cells))
    for events in sizes:
        if (cell := results.get(("increment", events))) and cell["seconds"] is not None:
            print(
                f"increment at {size_name(events)}: wrote {cell['written_bytes']:,} of "
                f"{cell['segment_bytes']:,} bytes of segments, touched "
                f"{cell['touched_fraction']:.1%} of the users; joining all segments on read took "
                f"{cell['read_seconds']:.1f} s; broken rules: {cell['broken'] or 'none'}"
            )


def _shown(cell: Mapping[str, Any]) -> str:
    if cell["seconds"] is None:
        return cell["state"]
    return f"{cell['seconds']:.1f} s {cell['peak_gib']:.1f} GiB"


def main() -> int:
    """Run the benchmark; return 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog="make bench BENCH=tables", description=__doc__)
    parser.add_argument("--events", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--fresh", action="store_true", help="forget an unfinished run")
    asked = parser.parse_args()
    sizes = sorted(set(asked.events))
    bench = open_bench("tables", fresh=asked.fresh)
    results = hold(bench, sizes, asked.engines)
    _print_table(results, sizes)
    stages = [results[k].get("stages") for k in results if k[0] == "ranklake"]
    if stages and stages[-1]:
        print_stages(stages[-1], speeds=bandwidths(bench.home))
    bench.cells.finish()
    return 0 if print_result("tables", figures_of(results, sizes), goals=GOALS) else 1


if __name__ == "__main__":
    sys.exit(main())
