"""Simulate one block of users: vectorised over users, one step per request.

Each step shows every active user one request. The feed chooses from what it can see (posterior
means and appeal), the user answers from the planted tastes, and the posterior takes the answers
in. Items of a request are shown at once: its own outcomes reach later requests only.
"""

from dataclasses import dataclass

import numpy as np

from pipelines.sources.simulation import posterior
from pipelines.sources.simulation.calendar import DAY_SECONDS, local_seconds
from pipelines.sources.simulation.catalogue import DAYPARTS, Catalogue, build_catalogue
from pipelines.sources.simulation.config import TERMS, FeedConfig
from pipelines.sources.simulation.visits import request_times

BLOCK_USERS = 256
ORDER_NOISE = 0.7  # of the preference order: 0 sorts by weight, 1 draws by weight
_NEVER = -1_000


# Shapes: U users, N slots, T topics, I items, L levels, A further actions.
@dataclass(kw_only=True, slots=True)
class VisibleState:
    """Hold what the feed has seen of each user of a block.

    Attributes:
        log_posterior: Unnormalised log posterior of the taste levels.
        shown: Items shown so far; an item is shown once.
        item_click: The user's request in which the item was clicked last.
        topic_click: The user's request in which the topic was clicked last.
        last_items: Items of the previous request, -1 before the first.
        last_clicks: Which of them were clicked.
    """

    log_posterior: np.ndarray
    shown: np.ndarray
    item_click: np.ndarray
    topic_click: np.ndarray
    last_items: np.ndarray
    last_clicks: np.ndarray

    @classmethod
    def fresh(cls, config: FeedConfig, *, num_users: int, num_topics: int) -> "VisibleState":
        """Return the state before the first request."""
        return cls(
            log_posterior=posterior.log_prior(config, num_users=num_users, num_topics=num_topics),
            shown=np.zeros((num_users, config.items), dtype=bool),
            item_click=np.full((num_users, config.items), _NEVER, dtype=np.int16),
            topic_click=np.full((num_users, num_topics), _NEVER, dtype=np.int16),
            last_items=np.full((num_users, config.slots), -1),
            last_clicks=np.zeros((num_users, config.slots), dtype=bool),
        )


def simulate_block(config: FeedConfig, block: int) -> dict[str, np.ndarray]:
    """Simulate the users of one block.

    Args:
        config: The feed's knobs.
        block: Number of the block; it holds users block * 256 and on, and seeds its own stream.

    Returns:
        Aligned columns, one entry per impression, ordered by request number, then user, then
        position. `without_<term>` is the reachable probability with that term left out.
    """
    rng = np.random.default_rng((config.seed, block))
    catalogue = build_catalogue(config)
    first = block * BLOCK_USERS
    num_users = min(BLOCK_USERS, config.users - first)
    num_topics = len(catalogue.cause)
    time_UR = request_times(config, num_users=num_users, rng=rng)
    share = config.taste_fraction
    levels_UT = rng.choice(3, (num_users, num_topics), p=[share, 1 - 2 * share, share])
    state = VisibleState.fresh(config, num_users=num_users, num_topics=num_topics)
    steps = []
    for request in range(time_UR.shape[1]):
        users_U = np.flatnonzero(np.isfinite(time_UR[:, request]))
        if not len(users_U):
            break
        step = _Step(
            config=config,
            catalogue=catalogue,
            state=state,
            users=users_U,
            seconds=time_UR[users_U, request],
            request=request,
        )
        steps.append(step.run(levels_UT[users_U], rng))
    columns = {name: np.concatenate([step[name] for step in steps]) for name in steps[0]}
    columns["user"] = columns["user"] + first
    return columns


@dataclass(kw_only=True, slots=True)
class _Step:
    """One request of every active user of a block."""

    config: FeedConfig
    catalogue: Catalogue
    state: VisibleState
    users: np.ndarray
    seconds: np.ndarray
    request: int

    def run(self, levels_UT: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Choose, show, let the users act, and take the outcomes into the visible state."""
        weights_UTL = posterior.normalise(self.state.log_posterior[self.users])
        items_UN = self._choose(weights_UTL @ posterior.LEVELS, rng)
        items_UN, propensity_UN, shuffled_U = _order(self.config, items_UN, rng)
        terms = self._known_terms(items_UN)
        topic_UN = self.catalogue.topic[items_UN]
        known_UN = self.config.base_logit + np.sum(list(terms.values()), axis=0)
        level_UN = np.take_along_axis(levels_UT, topic_UN, axis=1)
        scale = self.config.taste_scale
        true_UN = posterior.sigmoid(known_UN + scale * posterior.LEVELS[level_UN])
        clicked_UN = rng.random(true_UN.shape) < true_UN
        further = posterior.further_probabilities(posterior.LEVELS[level_UN])
        further_UNA = (rng.random(further.shape) < further) & clicked_UN[..., None]
        weights_UNL = np.take_along_axis(weights_UTL, topic_UN[..., None], axis=1)
        columns = {
            "item": items_UN,
            "propensity": propensity_UN,
            "is_shuffled": np.broadcast_to(shuffled_U[:, None], items_UN.shape),
            "true_probability": true_UN,
            "reachable_probability": posterior.predictive(known_UN, weights_UNL, taste_scale=scale),
            **self._ablations(known_UN, terms, weights_UNL),
            "clicked": clicked_UN,
            "level": level_UN,
            **{name: further_UNA[..., k] for k, name in enumerate(posterior.ACTIONS[1:])},
        }
        self._observe(items_UN, known_UN, clicked_UN, further_UNA)
        return self._flatten(columns)

    def _choose(self, mean_UT: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw slots without replacement, about best first; insert a successor of a recent item.

        The draw is an exponential race: the smallest of Exp(1) / weight wins.
        """
        config, catalogue = self.config, self.catalogue
        weight_UT = np.exp(config.policy_taste * config.taste_scale * mean_UT).astype(np.float32)
        weight_UI = np.exp(np.float32(config.policy_popularity) * self._appeal_now())
        weight_UI *= weight_UT[:, catalogue.topic]
        race_UI = rng.standard_exponential(weight_UI.shape, dtype=np.float32) / weight_UI
        hidden_UI = self.state.shown[self.users]
        hidden_UI |= catalogue.created > self.seconds[:, None]
        race_UI[hidden_UI] = np.inf
        picks_UN = np.argpartition(race_UI, config.slots - 1, axis=1)[:, : config.slots]
        liking_UN = np.take_along_axis(weight_UI, picks_UN, axis=1)
        noise_UN = rng.standard_exponential(picks_UN.shape) ** ORDER_NOISE
        picks_UN = np.take_along_axis(picks_UN, np.argsort(noise_UN / liking_UN, axis=1), axis=1)
        return self._insert_successor(picks_UN, hidden_UI, rng)

    def _appeal_now(self) -> np.ndarray:
        """Return every item's appeal at the request: appeal when new, halved per half-life."""
        half_life = self.config.popularity_half_life_days * DAY_SECONDS
        now_U1 = np.exp2(-self.seconds / half_life)[:, None].astype(np.float32)
        born_I = self.catalogue.appeal * np.exp2(self.catalogue.created / half_life)
        return now_U1 * born_I.astype(np.float32)

    def _insert_successor(
        self, picks_UN: np.ndarray, hidden_UI: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Put the successor of an item of the last request, a clicked one first, into a slot."""
        rows_U = np.arange(len(picks_UN))
        last_UN = self.state.last_items[self.users]
        next_UN = np.where(last_UN >= 0, self.catalogue.successor[last_UN], -1)
        can_UN = (next_UN >= 0) & ~hidden_UI[rows_U[:, None], next_UN]
        wish_UN = can_UN * (0.5 + self.state.last_clicks[self.users] + rng.random(can_UN.shape))
        best_U = wish_UN.argmax(axis=1)
        item_U = next_UN[rows_U, best_U]
        inserts_U = can_UN[rows_U, best_U] & ~(picks_UN == item_U[:, None]).any(axis=1)
        inserts_U &= rng.random(len(rows_U)) < self.config.transition_insertion
        slot_U = rng.integers(0, self.config.slots, len(rows_U))
        picks_UN[rows_U[inserts_U], slot_U[inserts_U]] = item_U[inserts_U]
        return picks_UN

    def _known_terms(self, items_UN: np.ndarray) -> dict[str, np.ndarray]:
        """Return the log-odds of every term but taste, at the time of the request."""
        config, catalogue, users_U1 = self.config, self.catalogue, self.users[:, None]
        topic_UN = catalogue.topic[items_UN]
        part_U = _daypart(config, self.seconds)
        age_days_UN = (self.seconds[:, None] - catalogue.created[items_UN]) / DAY_SECONDS
        before_UN = catalogue.predecessor[items_UN]
        cause_age_UN = self.request - self.state.topic_click[users_U1, catalogue.cause[topic_UN]]
        click_age_UN = self.request - self.state.item_click[users_U1, before_UN]
        is_next_UN = (before_UN >= 0) & (click_age_UN <= config.transition_requests)
        ranks_N = np.arange(config.slots) - (config.slots - 1) / 2
        decay_UN = np.exp2(-age_days_UN / config.popularity_half_life_days)
        return {
            "daypart": catalogue.daypart[topic_UN, part_U[:, None]],
            "causal": config.causal_boost * (cause_age_UN <= config.causal_requests),
            "popularity": catalogue.appeal[items_UN] * decay_UN,
            "position": np.broadcast_to(-config.position_scale * ranks_N, items_UN.shape),
            "transition": config.transition_boost * is_next_UN,
        }

    def _ablations(
        self, known_UN: np.ndarray, terms: dict[str, np.ndarray], weights_UNL: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return the reachable probability with one term at a time left out."""
        share, scale = self.config.taste_fraction, self.config.taste_scale
        prior_UNL = np.broadcast_to([share, 1 - 2 * share, share], weights_UNL.shape)
        left_out = {}
        for term in TERMS:
            logit_UN = known_UN - terms[term] if term in terms else known_UN
            weights = prior_UNL if term == "taste" else weights_UNL
            left_out[f"without_{term}"] = posterior.predictive(logit_UN, weights, taste_scale=scale)
        return left_out

    def _observe(
        self,
        items_UN: np.ndarray,
        known_UN: np.ndarray,
        clicked_UN: np.ndarray,
        further_UNA: np.ndarray,
    ) -> None:
        """Take a request's outcomes into the visible state."""
        state, users_U = self.state, self.users
        topic_UN = self.catalogue.topic[items_UN]
        evidence_UNL = posterior.log_likelihood(
            known_UN, clicked_UN, further_UNA, taste_scale=self.config.taste_scale
        )
        for slot in range(items_UN.shape[1]):
            state.log_posterior[users_U, topic_UN[:, slot]] += evidence_UNL[:, slot]
            clickers = clicked_UN[:, slot]
            who = users_U[clickers]
            state.topic_click[who, topic_UN[clickers, slot]] = self.request
            state.item_click[who, items_UN[clickers, slot]] = self.request
        state.shown[users_U[:, None], items_UN] = True
        state.last_items[users_U] = items_UN
        state.last_clicks[users_U] = clicked_UN

    def _flatten(self, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        shape = columns["item"].shape
        columns["user"] = np.broadcast_to(self.users[:, None], shape)
        columns["time"] = np.broadcast_to(self.seconds[:, None], shape)
        columns["position"] = np.broadcast_to(np.arange(shape[1]), shape)
        columns["request"] = np.full(shape, self.request)
        return {name: np.ascontiguousarray(values).ravel() for name, values in columns.items()}


def _order(
    config: FeedConfig, items_UN: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Order each request: shuffled uniformly, or by preference and then rotated at random.

    Returns:
        The items in shown order, the probability that the policy put each at its position given
        its kind of request and its preference order, and which requests were shuffled.
    """
    num_users, slots = items_UN.shape
    shuffled_U = rng.random(num_users) < config.shuffled_fraction
    kept_U = rng.random(num_users) < config.kept_order_fraction
    turn_U = np.where(kept_U, 0, rng.integers(1, slots, num_users))
    rotated_UN = (np.arange(slots) + turn_U[:, None]) % slots
    random_UN = np.argsort(rng.random(items_UN.shape), axis=1)
    order_UN = np.where(shuffled_U[:, None], random_UN, rotated_UN)
    other = (1.0 - config.kept_order_fraction) / (slots - 1)
    propensity_U = np.where(kept_U, config.kept_order_fraction, other)
    propensity_U = np.where(shuffled_U, 1.0 / slots, propensity_U)
    propensity_UN = np.broadcast_to(propensity_U[:, None], items_UN.shape)
    return np.take_along_axis(items_UN, order_UN, axis=1), propensity_UN, shuffled_U


def _daypart(config: FeedConfig, time_U: np.ndarray) -> np.ndarray:
    """Return the local quarter of the day: night, morning, afternoon or evening."""
    second_of_day_U = local_seconds(config, time_U) % DAY_SECONDS
    return (second_of_day_U // (DAY_SECONDS // DAYPARTS)).astype(int)
