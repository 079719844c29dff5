"""What the visible history says about a user's tastes, exactly.

A user holds one of three discrete levels per topic, drawn independently. Given the levels, every
outcome depends on the level of the shown item's topic alone, and the logging policy looks at
visible state only. So the posterior is a product over topics, and each outcome multiplies one
factor: no approximation. Item-side parameters, shared effects and the prior count as known.
"""

import numpy as np

from pipelines.sources.simulation.config import FeedConfig

LEVELS = np.array([-1.0, 0.0, 1.0])
ACTIONS = ("click", "long_dwell", "like", "comment", "share")
# Log-odds of each further action given a click: at a neutral taste, and per level of taste.
FURTHER_BASE = np.array([-0.3, -1.6, -2.8, -3.2])
FURTHER_GAIN = np.array([0.9, 1.0, 0.8, 0.8])


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return the logistic function of each value."""
    return 1.0 / (1.0 + np.exp(-logits))


# Shapes: U users, T topics, N slots, L levels, A further actions.
def log_prior(config: FeedConfig, *, num_users: int, num_topics: int) -> np.ndarray:
    """Return the log prior of every user's level of every topic."""
    share = config.taste_fraction
    log_prior_L = np.log([share, 1.0 - 2.0 * share, share])
    return np.tile(log_prior_L, (num_users, num_topics, 1))


def normalise(log_weights: np.ndarray) -> np.ndarray:
    """Turn log weights over the last axis into probabilities."""
    weights = np.exp(log_weights - log_weights.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def further_probabilities(levels: np.ndarray) -> np.ndarray:
    """Return P(further action | click, level), one more axis than `levels`."""
    return sigmoid(FURTHER_BASE + FURTHER_GAIN * np.asarray(levels)[..., None])


def log_likelihood(
    known_logit_UN: np.ndarray,
    clicked_UN: np.ndarray,
    further_UNA: np.ndarray,
    *,
    taste_scale: float,
) -> np.ndarray:
    """Return the log-likelihood of each shown item's outcomes under each level of its topic.

    Args:
        known_logit_UN: Log-odds of a click without the taste term.
        clicked_UN: Whether the item was clicked.
        further_UNA: Further actions; all False where there was no click.
        taste_scale: Log-odds per level.
    """
    logits_UNL = known_logit_UN[..., None] + taste_scale * LEVELS
    sign_UN1 = np.where(clicked_UN, 1.0, -1.0)[..., None]
    log_click_UNL = -np.logaddexp(0.0, -sign_UN1 * logits_UNL)
    odds_LA = FURTHER_BASE + FURTHER_GAIN * LEVELS[:, None]
    log_yes_LA = -np.logaddexp(0.0, -odds_LA)
    log_no_LA = -np.logaddexp(0.0, odds_LA)
    log_further_UNL = further_UNA @ (log_yes_LA - log_no_LA).T + log_no_LA.sum(axis=1)
    return log_click_UNL + clicked_UN[..., None] * log_further_UNL


def predictive(
    known_logit_UN: np.ndarray, weights_UNL: np.ndarray, *, taste_scale: float
) -> np.ndarray:
    """Return P(click) with the taste averaged over its posterior weights."""
    return (weights_UNL * sigmoid(known_logit_UN[..., None] + taste_scale * LEVELS)).sum(axis=-1)
