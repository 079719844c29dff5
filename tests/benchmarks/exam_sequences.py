"""The simulated feed's references as sequences, for rivals that need no lakehouse."""

from collections.abc import Mapping

import numpy as np

from ml.features import SPLITS, FeatureSpec, SequenceData
from ml.item_table import ItemTable
from pipelines.sources.simulation.calendar import DAY_SECONDS, HOUR_SECONDS, local_seconds
from pipelines.sources.simulation.catalogue import Catalogue, build_catalogue
from pipelines.sources.simulation.config import FeedConfig

_WINDOW_DAYS = 7
_PRIOR_EVENTS = 20.0
_SESSION_GAP_SECONDS = 1800

Columns = Mapping[str, np.ndarray]


def item_table(catalogue: Catalogue) -> ItemTable:
    """Return the catalogue with the topic as the only tag; row 0 is the unknown item."""
    num_items = len(catalogue.topic)
    return ItemTable(
        tags=np.concatenate([[0], catalogue.topic + 1]).astype(np.int32)[:, None],
        codes=np.zeros((num_items + 1, 0), np.int32),
        author=np.concatenate([[0], catalogue.author + 1]).astype(np.int32),
        embedding=np.zeros((num_items + 1, 0), np.float32),
        tag_names=np.arange(len(catalogue.cause)).astype(str),
    )


def feature_spec(catalogue: Catalogue) -> FeatureSpec:
    """Return the vocabulary sizes of `item_table` for the click alone."""
    return FeatureSpec(
        num_items=len(catalogue.topic),
        actions=("click",),
        primary_action="click",
        num_tags=len(catalogue.cause) + 1,
        num_authors=int(catalogue.author.max()) + 2,
    )


def split_masks(columns: Columns, *, starts: tuple[float, float]) -> dict[str, np.ndarray]:
    """Return which impressions each split holds, by time.

    Args:
        columns: Columns of `references`.
        starts: Start of validation and of test, seconds since the log's start.
    """
    time = columns["time"]
    is_later = (time >= starts[0], time >= starts[1])
    return {
        "train": ~is_later[0],
        "validation": is_later[0] & ~is_later[1],
        "test": is_later[1],
    }


def split_sequences(
    columns: Columns, *, config: FeedConfig, starts: tuple[float, float]
) -> dict[str, SequenceData]:
    """Cut the impressions into sequences: every earlier event is context, the split's own count.

    Args:
        columns: Columns of `references`, sorted by user, request and position.
        config: The feed's knobs.
        starts: Start of validation and of test, seconds since the log's start.
    """
    features = _event_features(columns, config)
    masks = split_masks(columns, starts=starts)
    visible, sequences = np.zeros(len(columns["time"]), bool), {}
    for number, name in enumerate(SPLITS):
        visible = visible | masks[name]
        rows = {key: values[visible] for key, values in features.items()}
        user = columns["user"][visible]
        first = np.flatnonzero(np.concatenate([[True], user[1:] != user[:-1]]))
        sequences[name] = SequenceData(
            offsets=np.append(first, len(user)).astype(np.int64),
            user=user[first].astype(np.int32),
            split=np.full(len(first), number, np.int8),
            is_target=masks[name][visible],
            **rows,
        )
    return sequences


def _event_features(columns: Columns, config: FeedConfig) -> dict[str, np.ndarray]:
    catalogue = build_catalogue(config)
    clock = local_seconds(config, columns["time"])
    day = (clock // DAY_SECONDS).astype(int)
    shown, clicked = (
        _daily_totals(columns, day, weights, config)
        for weights in (np.ones(len(day)), columns["clicked"])
    )
    before, item = np.maximum(day - _WINDOW_DAYS, 0), columns["item"]
    rate = columns["clicked"].mean()
    smoothed = (clicked[day, item] + _PRIOR_EVENTS * rate) / (shown[day, item] + _PRIOR_EVENTS)
    age_days = (columns["time"] - catalogue.created[item]) / DAY_SECONDS
    integers = {
        "item": item + 1,
        "request": columns["request"],
        "session": _sessions(columns),
        "actions": columns["clicked"],
        "dwell": np.zeros(len(item)),
        "position": columns["position"] + 1,
        "surface": np.zeros(len(item)),
        "hour": clock % DAY_SECONDS // HOUR_SECONDS,
        "weekday": day % 7,
        "age": 1 + np.clip(np.log2(1 + age_days), 0, 7),
        "popularity": _percentiles(shown[day, item]),
        "rate": _percentiles(smoothed),
        "impressions_7d": shown[day, item] - shown[before, item],
        "positives_7d": clicked[day, item] - clicked[before, item],
    }
    kept = ("true_probability", "reachable_probability", "propensity", "is_shuffled")
    exact = {name: columns[name] for name in kept}
    times = {"time": columns["time"].astype(np.int64)}
    return {name: values.astype(np.int32) for name, values in integers.items()} | exact | times


def _sessions(columns: Columns) -> np.ndarray:
    """Number each user's sessions from 1; a gap of over half an hour begins one."""
    user, time = columns["user"], columns["time"]
    is_new_user = np.concatenate([[True], user[1:] != user[:-1]])
    begins = is_new_user | (np.diff(time, prepend=time[:1]) > _SESSION_GAP_SECONDS)
    number = np.cumsum(begins)
    return number - np.repeat(
        number[is_new_user] - 1, np.diff(np.append(np.flatnonzero(is_new_user), len(user)))
    )


def _daily_totals(
    columns: Columns, day: np.ndarray, weights: np.ndarray, config: FeedConfig
) -> np.ndarray:
    """Return each item's totals over the days strictly before each day."""
    totals = np.zeros((config.days + 2, config.items))
    np.add.at(totals, (day + 1, columns["item"]), weights)
    return totals.cumsum(axis=0)


def _percentiles(values: np.ndarray) -> np.ndarray:
    cuts = np.quantile(values, np.linspace(0, 1, 100))
    return np.clip(np.searchsorted(cuts, values) + 1, 1, 100)
