"""Make the raw log and the catalogue of the table benchmarks, a day at a time.

One zstd Parquet file per day with an equal share of the rows, ordered by arrival, and one of
items. Ids are strings, times are UTC instants of whole seconds, so that ties happen. Users come
in visits of some forty minutes. A stated share of the rows are delivered again:

- copies: the same values, received later;
- corrections: more actions, received on the same day (so that the arrival alone does not
  decide);
- late copies: received, and filed, one day later.

An item that the catalogue lacks is asked for now and then.
"""

import json
import shutil
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SHAPES = ("usual", "even", "skewed")
FIRST_DAY = date(2026, 1, 1)
_DAY_SECONDS = 86_400
_EVENT_ID_DIGITS = 11
_VISIT_SECONDS = 2_400
_UNKNOWN_ITEM_FRACTION = 0.005
_CATEGORIES = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class LogPlan:
    """Say what a log holds.

    Attributes:
        events: Rows in all, those delivered again included.
        days: Days, each with the same number of rows.
        shape: "usual" (log-normal activity of users, Zipf items), "even" (every user and item
            alike) or "skewed" (Zipf users and items, one user and one bot as below).
        events_per_user: Rows divided by users.
        items: Items of the catalogue.
        copy_fraction: Rows that are copies of the day.
        correction_fraction: Rows that correct another row of the day.
        late_fraction: Rows that repeat a row of the day before.
        heavy_fraction: Of a skewed log, rows of its most active user.
        bot_fraction: Of a skewed log, rows of its bot.
        seed: Seed of everything.
    """

    events: int
    days: int = 100
    shape: str = "usual"
    events_per_user: int = 100
    items: int = 100_000
    copy_fraction: float = 0.02
    correction_fraction: float = 0.02
    late_fraction: float = 0.01
    heavy_fraction: float = 0.01
    bot_fraction: float = 0.05
    seed: int = 20260101

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If the shape is unknown or the rows cannot be shared out among the days.
        """
        if self.shape not in SHAPES:
            raise ValueError(f"shape must be one of {SHAPES}, not {self.shape!r}")
        if self.events < self.days * 100 or self.events % self.days:
            raise ValueError(
                f"events must be a multiple of {self.days} days, with at least 100 rows a day, "
                f"not {self.events}"
            )

    @property
    def users(self) -> int:
        """Return the number of users, at least two."""
        return max(2, self.events // self.events_per_user)


@dataclass(frozen=True, slots=True)
class RawLog:
    """Name the files of a log.

    Attributes:
        days: One Parquet file per day, oldest first.
        items: Parquet file of the catalogue.
    """

    days: tuple[Path, ...]
    items: Path


@dataclass(frozen=True, slots=True)
class _Rows:
    """Hold rows as numpy columns of one length; times are seconds since 1970."""

    number: np.ndarray
    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    arrival: np.ndarray
    actions: np.ndarray

    def take(self, places: np.ndarray) -> "_Rows":
        return _Rows(*(getattr(self, name)[places] for name in self.__slots__))


def make_log(plan: LogPlan, folder: Path) -> RawLog:
    """Return a plan's log from the cache, making it if it is not there whole.

    Args:
        plan: What the log holds.
        folder: Cache of logs; the log gets a folder of its own in it.
    """
    home = folder / f"{plan.shape}-{plan.events}-in-{plan.days}-days"
    mark = home / "plan.json"
    wanted = json.dumps(asdict(plan))
    log = RawLog(
        days=tuple(home / f"day-{day:03}.parquet" for day in range(plan.days)),
        items=home / "items.parquet",
    )
    if mark.exists() and mark.read_text() == wanted:
        return log
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    pq.write_table(_catalogue(plan), log.items, compression="zstd")
    _write_days(plan, log)
    mark.write_text(wanted)
    return log


def _catalogue(plan: LogPlan) -> pa.Table:
    indices = np.arange(1, plan.items + 1)
    return pa.table(
        {
            "item_id": _names("i", indices, digits=7),
            "item_index": pa.array(indices, pa.int32()),
            "category_index": pa.array(indices * 7919 % _CATEGORIES + 1, pa.int32()),
        }
    )


def _write_days(plan: LogPlan, log: RawLog) -> None:
    rng = np.random.default_rng(plan.seed)
    users, items = _user_shares(plan, rng), _item_shares(plan)
    per_day = plan.events // plan.days
    number, again = 0, None
    for day, path in enumerate(log.days):
        num_late = 0 if again is None else len(again.number)
        copies = round(per_day * plan.copy_fraction)
        corrections = round(per_day * plan.correction_fraction)
        fresh = per_day - num_late - copies - corrections
        rows = _fresh_rows(fresh, rng=rng, day=day, shares=(users, items), first=number)
        number += fresh
        parts = [rows, _copies(rows, copies, rng), _corrections(rows, corrections, rng)]
        if again is not None:
            parts.append(again)
        again = _late(rows, round(per_day * plan.late_fraction), rng)
        whole = _Rows(*(np.concatenate([getattr(p, n) for p in parts]) for n in _Rows.__slots__))
        _write_day(whole.take(np.argsort(whole.arrival, kind="stable")), day, path)


def _user_shares(plan: LogPlan, rng: np.random.Generator) -> np.ndarray:
    """Return the cumulative shares of the rows by user."""
    if plan.shape == "skewed":
        weights = 1.0 / np.arange(1, plan.users + 1) ** 0.8
        weights[:2] = 0.0
        weights *= (1 - plan.heavy_fraction - plan.bot_fraction) / weights.sum()
        weights[:2] = plan.heavy_fraction, plan.bot_fraction
    elif plan.shape == "even":
        weights = np.ones(plan.users)
    else:
        weights = rng.lognormal(sigma=1.2, size=plan.users)
    return np.cumsum(weights) / weights.sum()


def _item_shares(plan: LogPlan) -> np.ndarray:
    """Return the cumulative shares of the rows by item; the last one is not in the catalogue."""
    ranks = np.arange(1, plan.items + 1)
    weights = np.ones(plan.items) if plan.shape == "even" else 1.0 / ranks
    known = weights / weights.sum() * (1 - _UNKNOWN_ITEM_FRACTION)
    return np.cumsum(np.append(known, _UNKNOWN_ITEM_FRACTION))


def _fresh_rows(
    count: int,
    *,
    rng: np.random.Generator,
    day: int,
    shares: tuple[np.ndarray, np.ndarray],
    first: int,
) -> _Rows:
    user = np.minimum(np.searchsorted(shares[0], rng.random(count)), len(shares[0]) - 1)
    item = np.minimum(np.searchsorted(shares[1], rng.random(count)), len(shares[1]) - 1)
    visit = (user * 1_000_003 + day * 7_919 + rng.integers(0, 3, count) * 104_729) % 1_000_000_007
    start = visit * 48_271 % (_DAY_SECONDS - 2 * _VISIT_SECONDS)
    within = start + rng.integers(0, _VISIT_SECONDS, count)
    time = np.sort(_midnight(day) + within)
    order = np.argsort(within, kind="stable")
    clicked = (rng.random(count) < 0.2).astype(np.int32)
    liked = (rng.random(count) < 0.03).astype(np.int32)
    return _Rows(
        np.arange(first, first + count),
        user[order],
        item[order] + 1,
        time,
        time + rng.integers(0, 300, count),
        clicked | liked << 1,
    )


def _copies(rows: _Rows, count: int, rng: np.random.Generator) -> _Rows:
    again = rows.take(rng.integers(0, len(rows.number), count))
    return replace(again, arrival=again.arrival + rng.integers(1, 600, count))


def _corrections(rows: _Rows, count: int, rng: np.random.Generator) -> _Rows:
    """Set the third action."""
    again = rows.take(rng.integers(0, len(rows.number), count))
    delay = np.where(rng.random(count) < 0.5, 0, rng.integers(1, 600, count))
    return replace(again, arrival=again.arrival + delay, actions=again.actions | 4)


def _late(rows: _Rows, count: int, rng: np.random.Generator) -> _Rows:
    """Repeat rows on the next day, every other one with another action."""
    again = rows.take(rng.integers(0, len(rows.number), count))
    more = np.where(np.arange(count) % 2 == 0, 8, 0).astype(np.int32)
    return replace(again, arrival=again.arrival + _DAY_SECONDS, actions=again.actions | more)


def _midnight(day: int) -> int:
    return ((FIRST_DAY - date(1970, 1, 1)).days + day) * _DAY_SECONDS


def _write_day(rows: _Rows, day: int, path: Path) -> None:
    filed = np.full(len(rows.number), _midnight(day) // _DAY_SECONDS, np.int32)
    table = pa.table(
        {
            "event_id": _names("e", rows.number, digits=_EVENT_ID_DIGITS),
            "user_id": _names("u", rows.user, digits=7),
            "item_id": _names("i", rows.item, digits=7),
            "event_time": _times(rows.time),
            "arrival_time": _times(rows.arrival),
            "event_date": pa.array(filed).cast(pa.date32()),
            "action_bits": pa.array(rows.actions, pa.int32()),
        }
    )
    pq.write_table(table, path, compression="zstd")


def _times(seconds: np.ndarray) -> pa.Array:
    return pa.array(seconds * 1_000_000, pa.int64()).cast(pa.timestamp("us", tz="UTC"))


def _names(letter: str, numbers: np.ndarray, *, digits: int) -> pa.Array:
    """Return a letter and so many decimal digits per number, as strings."""
    width = digits + 1
    text = np.empty((len(numbers), width), np.uint8)
    text[:, 0] = ord(letter)
    rest = numbers.astype(np.int64)
    for place in range(digits, 0, -1):
        rest, digit = np.divmod(rest, 10)
        text[:, place] = digit + ord("0")
    offsets = np.arange(0, (len(numbers) + 1) * width, width, dtype=np.int32)
    return pa.StringArray.from_buffers(
        len(numbers), pa.py_buffer(offsets.tobytes()), pa.py_buffer(text.tobytes())
    )
