"""From simulated impressions to the rows of a log, with planted bad rows between them.

Every bad row is added: none replaces or touches a true one, so cleaning that keeps exactly the
true rows recovers the simulated impressions. Of two rows with one id the true one is received
last: the stale one is an earlier version that the log corrected.
"""

from collections.abc import Mapping

import numpy as np

from pipelines.sources.simulation.calendar import DAY_SECONDS, local_seconds
from pipelines.sources.simulation.catalogue import build_catalogue
from pipelines.sources.simulation.config import FeedConfig
from pipelines.sources.simulation.posterior import ACTIONS

TRUE_ROW = "true"
# Every invalid kind has invalid_fraction rows per true row.
INVALID_KINDS = (
    "orphan_action",
    "unknown_item",
    "unknown_action",
    "impossible_time",
    "missing_user",
    "out_of_range",
)
ROW_KINDS = (TRUE_ROW, "malformed", "exact_duplicate", "stale_duplicate", *INVALID_KINDS)
SECONDS_PER_SLOT = 4.0
_MICROS = 1_000_000
_LATE_DAYS = (1.0, 3.0)

Columns = dict[str, np.ndarray]


def log_rows(
    config: FeedConfig, impressions: Mapping[str, np.ndarray], rng: np.random.Generator
) -> Columns:
    """Write a block's impressions as rows of a log: impressions, actions, planted bad rows.

    Args:
        config: The feed's knobs.
        impressions: What `simulate_block` returned.
        rng: Random stream of the rows.

    Returns:
        Aligned columns of numbers: `index` (impression within the block), `action` (-1 for an
        impression row), `row_kind` (place in `ROW_KINDS`), times in microseconds since the log's
        start, `day` (local day of the impression, counted from 0).
    """
    shown = _impression_rows(config, impressions, rng)
    true_rows = _stack([shown, *_action_rows(config, impressions, shown, rng)])
    true_rows["arrival"] = true_rows["time"] + _delays(config, len(true_rows["time"]), rng)
    planted = [_plant(config, true_rows, kind, rng) for kind in range(1, len(ROW_KINDS))]
    return _stack([true_rows, *planted])


def _impression_rows(
    config: FeedConfig, impressions: Mapping[str, np.ndarray], rng: np.random.Generator
) -> Columns:
    jitter = rng.uniform(0.0, 1.0, len(impressions["time"]))
    seconds = impressions["time"] + SECONDS_PER_SLOT * (impressions["position"] + jitter)
    duration_ms = build_catalogue(config).duration_ms[impressions["item"]]
    numbers = len(seconds)
    return {
        "index": np.arange(numbers),
        "row_kind": np.zeros(numbers, dtype=np.int64),
        "action": np.full(numbers, -1),
        "user": impressions["user"],
        "item": impressions["item"],
        "request": impressions["request"],
        "time": (seconds * _MICROS).astype(np.int64),
        "day": (local_seconds(config, seconds) // DAY_SECONDS).astype(np.int64),
        "position": impressions["position"],
        "duration_ms": duration_ms,
        "dwell_ms": np.full(numbers, -1),
        "propensity": impressions["propensity"],
        "is_shuffled": impressions["is_shuffled"],
        "true_probability": impressions["true_probability"],
        "reachable_probability": impressions["reachable_probability"],
    }


def _action_rows(
    config: FeedConfig,
    impressions: Mapping[str, np.ndarray],
    shown: Columns,
    rng: np.random.Generator,
) -> list[Columns]:
    """Return one set of rows per action; a click carries the dwell, a share of the duration."""
    stays = impressions["long_dwell"]
    numbers = len(stays)
    fraction = np.where(stays, rng.uniform(0.6, 1.0, numbers), rng.uniform(0.05, 0.5, numbers))
    dwell_ms = (fraction * shown["duration_ms"]).astype(np.int64)
    delay_seconds = rng.uniform(0.5, SECONDS_PER_SLOT, numbers)
    rows = []
    for number, name in enumerate(ACTIONS):
        acted = np.flatnonzero(impressions["clicked" if name == "click" else name])
        part = {column: values[acted] for column, values in shown.items()}
        part["action"] = np.full(len(acted), number)
        reading_ms = 0 if name == "click" else dwell_ms[acted]
        wait = delay_seconds[acted] * _MICROS + reading_ms * 1_000
        part["time"] = part["time"] + wait.astype(np.int64)
        if name == "click":
            part["dwell_ms"] = dwell_ms[acted]
        rows.append(part)
    return rows


def _delays(config: FeedConfig, numbers: int, rng: np.random.Generator) -> np.ndarray:
    """Draw how long the log takes to receive each row: seconds, or days for late rows."""
    late = rng.random(numbers) < config.late_fraction
    days = rng.uniform(*_LATE_DAYS, numbers) * DAY_SECONDS
    return (np.where(late, days, 10.0 + rng.exponential(5.0, numbers)) * _MICROS).astype(np.int64)


def _plant(config: FeedConfig, rows: Columns, kind: int, rng: np.random.Generator) -> Columns:
    """Copy random true rows and spoil them in one way."""
    name = ROW_KINDS[kind]
    shares = {
        "malformed": config.malformed_fraction,
        "exact_duplicate": config.duplicate_fraction,
        "stale_duplicate": config.duplicate_fraction,
    }
    wanted = shares.get(name, config.invalid_fraction) * len(rows["time"])
    number = int(wanted) + int(rng.random() < wanted % 1.0)
    source = np.arange(len(rows["time"]))
    if name in ("unknown_item", "impossible_time", "missing_user", "out_of_range"):
        source = np.flatnonzero(rows["action"] < 0)
    elif name in ("orphan_action", "unknown_action"):
        source = np.flatnonzero(rows["action"] == 0)
    chosen = rng.choice(source, min(number, len(source)), replace=False)
    part = {column: values[chosen] for column, values in rows.items()}
    part["row_kind"] = np.full(len(chosen), kind)
    _spoil(part, name, rng)
    return part


def _spoil(part: Columns, name: str, rng: np.random.Generator) -> None:
    """Change, in place, what makes rows of one kind bad; ids are spoiled when they are written."""
    numbers = len(part["time"])
    if name == "stale_duplicate":
        part["arrival"] = part["time"] + rng.integers(0, 5 * _MICROS, numbers)
        part["duration_ms"] = part["duration_ms"] + 1_000
    elif name == "impossible_time":
        ahead = rng.random(numbers) < 0.5
        years = np.where(ahead, 60, -40) * 365 * DAY_SECONDS * _MICROS
        part["time"] = part["time"] + years
        part["day"] = np.zeros(numbers, dtype=np.int64)
    elif name == "out_of_range":
        part["position"] = -1 - part["position"]


def _stack(parts: list[Columns]) -> Columns:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
