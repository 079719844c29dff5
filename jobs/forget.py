"""Forget users for good: `make forget USER=<id>`, or `USERS=<file>` with one id per line.

A run that is going on is not disturbed: the command says so and ends, or waits with WAIT=<seconds>.

The ids come in by the standard input, so that they are in no list of processes, and go into no
file: what is printed and kept are counts and keyed hashes.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path

from infra.errors import UserError
from infra.forgetting import Forgotten, forget_users
from infra.platform import Platform
from infra.run_lock import holders
from infra.spark_scratch import clear_scratch, stop_session
from pipelines.sources.errors import SourceError

_HEAD = ("table", "rows removed", "files removed", "versions removed")


def main(arguments: list[str] | None = None) -> int:
    """Forget the users named on the standard input.

    Args:
        arguments: How many seconds to wait for runs that are going on; none without them.

    Returns:
        0; 1 if a file that must stay still names one; 2 if it cannot be done.
    """
    platform = Platform()
    try:
        wait_seconds = _wait_seconds(sys.argv[1:] if arguments is None else arguments)
        user_ids = _read_ids()
        if wait_seconds and (others := holders(platform.settings().workspace)):
            sys.stderr.write(
                f"ranklake: waiting {wait_seconds:.0f} s at most for {', '.join(others)}\n"
            )
        today = datetime.now(UTC).date()
        done = forget_users(platform, user_ids, today=today, wait_seconds=wait_seconds)
        stop_session()
        scratch = clear_scratch(platform.settings())
    except (UserError, SourceError, ValueError) as error:
        sys.stderr.write(f"ranklake: {error}\n")
        return 2
    lines = [*describe(done, num_users=len(user_ids)), scratch, *_left(done)]
    sys.stdout.write("\n".join([*lines, ""]))
    return 1 if done.cleaned.left else 0


def describe(done: Forgotten, *, num_users: int) -> list[str]:
    """Return lines on what an erasure did.

    Args:
        done: What was done.
        num_users: How many users were to be forgotten.
    """
    lines = [f"{num_users} users suppressed, {done.found} of them found"]
    if not done.found:
        lines.append("nothing was found: no table holds a row of them")
    if done.tables:
        cells = [
            (each.table, f"{each.rows:,}", f"{each.files:,}", f"{each.versions:,}")
            for each in done.tables
        ]
        lines += _columns([_HEAD, *cells])
    others = f"{len(done.cleaned.removed)} removed, {len(done.cleaned.rewritten)} rewritten"
    lines += [
        f"models to be trained again: {', '.join(done.models) or 'none'}",
        f"models that lost their input example: {done.examples}",
        f"files of trainings and checkpoints removed: {done.checkpoints:,}",
        f"reports: {'removed; a run writes them anew' if done.reports else 'none to remove'}",
        f"other files that named a user: {others}",
    ]
    if done.unsearched:
        lines.append(
            f"{done.unsearched} ids are too short or too plain to be told from other words and "
            "numbers: logs and run histories were not searched for them"
        )
    if done.unfinished:
        lines.append(f"{done.unfinished} earlier erasures were interrupted: repeat them")
    return lines


def _left(done: Forgotten) -> list[str]:
    return [
        f"STILL NAMED in {path}: it cannot be changed without breaking it; remove it and what "
        "was made from it, then repeat the command"
        for path in done.cleaned.left
    ]


def _columns(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _wait_seconds(arguments: list[str]) -> float:
    text = arguments[0].strip() if arguments else ""
    try:
        seconds = float(text or 0)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise UserError(f"WAIT is {text!r}", remedy="say a number of seconds, as WAIT=600")
    return seconds


def _read_ids() -> list[str]:
    if sys.stdin.isatty():
        sys.stderr.write("ids of the users to forget, one per line; end with Ctrl-D:\n")
    ids = list(dict.fromkeys(line.strip() for line in sys.stdin if line.strip()))
    if not ids:
        raise UserError("no user is named", remedy="say make forget USER=<id> or USERS=<file>")
    return ids


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    sys.exit(main())
