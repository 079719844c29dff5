"""Two toys of the simulated feed, whose best predictor is exact and whose limit is known.

Four categories are the feed's topics; a request shows one item of a category drawn uniformly, and
a click is all that a user can do. Each user clicks with probability 0.9 where an independent fair
coin says that they like what is shown, else with 0.1:

- `dog_cat`: one coin per category, so that the hour tells nothing;
- `daypart`: one coin per category and half of the local day, so that a model must read the clock
  to tell which of the user's earlier events speak of this one.

Nothing else moves a click. A user has 32 events, the gaps between them exponential with a mean of
0.35 days. The first comes at any time of the log; events that would pass its end go on from its
beginning, so that all days are alike and one gap of such a user is long.

With the coins known, the normalised entropy is H(0.1) / ln 2 = 0.4690. The exact Bayes predictor
that sees earlier events alone reaches about 0.4956 on the events 16 to 31 (counted from 0) of
`dog_cat`, and about 0.579 on those of `daypart`.

Source: the toys of the specs attn-lfa-mvp 3.6 and siren-rope 1.8 (h).
"""

import numpy as np

from pipelines.sources.simulation.block import BLOCK_USERS
from pipelines.sources.simulation.calendar import DAY_SECONDS, local_seconds, log_seconds
from pipelines.sources.simulation.catalogue import build_catalogue
from pipelines.sources.simulation.config import NUM_PLANTED_TOPICS, TERMS, FeedConfig
from pipelines.sources.simulation.posterior import ACTIONS, sigmoid

NUM_EVENTS = 32
LIKED, DISLIKED = 0.9, 0.1  # P(click)
MEAN_GAP_SECONDS = 0.35 * DAY_SECONDS
# Longer than the slowest reader takes: a request's outcome is visible to the next one.
_LEAST_GAP_SECONDS = 60.0
_HALVES = 2


# Shapes: U users, E events of a user in the order of time, C coins.
def planted_block(config: FeedConfig, block: int) -> dict[str, np.ndarray]:
    """Simulate the users of one block of a preset.

    Args:
        config: The feed's knobs, with a preset.
        block: Number of the block, as `block.simulate_block` has it.

    Returns:
        The columns of `simulate_block` that the log and the references need, in its order.
        `without_taste` is 0.5; the other terms are not planted, and cost nothing.
    """
    rng = np.random.default_rng((config.seed, block))
    first = block * BLOCK_USERS
    num_users = min(BLOCK_USERS, config.users - first)
    time_UE = _times(config, num_users=num_users, rng=rng)
    topic_UE = rng.integers(NUM_PLANTED_TOPICS, size=time_UE.shape)
    coin_UE = coins(config, topic_UE, time_UE)
    likes_UC = rng.random((num_users, NUM_PLANTED_TOPICS * _HALVES)) < 0.5
    true_UE = np.where(np.take_along_axis(likes_UC, coin_UE, axis=1), LIKED, DISLIKED)
    clicked_UE = rng.random(time_UE.shape) < true_UE
    reachable_UE = reachable_probability(coin_UE, clicked_UE)
    columns = {
        "user": np.broadcast_to(np.arange(num_users)[:, None] + first, time_UE.shape),
        "item": _items(config, topic_UE, rng),
        "time": time_UE,
        "request": np.broadcast_to(np.arange(NUM_EVENTS), time_UE.shape),
        "position": np.zeros(time_UE.shape, dtype=int),
        "propensity": np.ones(time_UE.shape),
        "is_shuffled": np.zeros(time_UE.shape, dtype=bool),
        "true_probability": true_UE,
        "reachable_probability": reachable_UE,
        **{f"without_{term}": reachable_UE for term in TERMS},
        "without_taste": np.full(time_UE.shape, 0.5),
        "clicked": clicked_UE,
        **{name: np.zeros(time_UE.shape, dtype=bool) for name in ACTIONS[1:]},
    }
    return {name: np.ascontiguousarray(values.T).ravel() for name, values in columns.items()}


def coins(config: FeedConfig, topic_UE: np.ndarray, time_UE: np.ndarray) -> np.ndarray:
    """Return which of a user's coins decides about each event.

    Args:
        config: The feed's knobs, with a preset.
        topic_UE: Category of the item shown.
        time_UE: Seconds since the log's start.
    """
    if config.preset == "dog_cat":
        return topic_UE
    second_of_day_UE = local_seconds(config, time_UE) % DAY_SECONDS
    half_UE = (second_of_day_UE // (DAY_SECONDS // _HALVES)).astype(int)
    return topic_UE + NUM_PLANTED_TOPICS * half_UE


def reachable_probability(coin_UE: np.ndarray, clicked_UE: np.ndarray) -> np.ndarray:
    """Return P(click | the user's earlier events), exactly.

    The coins are independent and fair, so that the log-odds of one are a sum over the earlier
    events that it decided about: plus or minus log(0.9 / 0.1) each.

    Args:
        coin_UE: The coin of each event.
        clicked_UE: Whether the item was clicked.
    """
    evidence_UE = np.where(clicked_UE, 1.0, -1.0) * np.log(LIKED / DISLIKED)
    counts_UEE = np.tril(coin_UE[:, :, None] == coin_UE[:, None, :], k=-1)
    likes_UE = sigmoid(np.einsum("uef,uf->ue", counts_UEE.astype(float), evidence_UE))
    return DISLIKED + (LIKED - DISLIKED) * likes_UE


def _times(config: FeedConfig, *, num_users: int, rng: np.random.Generator) -> np.ndarray:
    """Draw each user's times, seconds since the log's start, ascending."""
    # What the least gaps add once times went round stays inside of the log.
    span = log_seconds(config) - 2 * NUM_EVENTS * _LEAST_GAP_SECONDS
    rest = MEAN_GAP_SECONDS - _LEAST_GAP_SECONDS
    gap_UE = _LEAST_GAP_SECONDS + rng.exponential(rest, (num_users, NUM_EVENTS))
    gap_UE[:, 0] = rng.uniform(0.0, span, num_users)
    time_UE = np.sort(np.cumsum(gap_UE, axis=1) % span, axis=1)
    for event in range(1, NUM_EVENTS):
        earliest_U = time_UE[:, event - 1] + _LEAST_GAP_SECONDS
        time_UE[:, event] = np.maximum(time_UE[:, event], earliest_U)
    return time_UE


def _items(config: FeedConfig, topic_UE: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw an item of each event's category, of those that are older than the log."""
    catalogue = build_catalogue(config)
    draw_UE, item_UE = rng.random(topic_UE.shape), np.zeros(topic_UE.shape, dtype=int)
    for topic in range(NUM_PLANTED_TOPICS):
        old = np.flatnonzero((catalogue.topic == topic) & (catalogue.created < 0))
        here_UE = topic_UE == topic
        item_UE[here_UE] = old[(draw_UE[here_UE] * len(old)).astype(int)]
    return item_UE
