"""Does exploring pay? Thompson's and greedy's regret on a 10-arm linear bandit, seed by seed.

Each seed draws 10 arms (unit vectors) and true weights, the latter from the prior that both
policies start from. Both update the same posterior; greedy plays its mean, Thompson a draw.
Regret is what the best arm would have earned more, summed over the rounds. Linear rewards have
Gaussian noise; binary ones are clicks with the logistic of the same score.

Run: make bench BENCH=bandit [ARGS="seeds rounds"]
"""

import sys
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from ml.features import FloatArray
from ml.ranking.bayesian_last_layer import Posterior, PosteriorConfig, session_generator
from tests.benchmarks.result_line import Goal, print_result

NUM_ARMS, WIDTH, ROUNDS_PER_UPDATE = 10, 8, 5
CONFIG = PosteriorConfig(prior_deviation=1.0, noise_deviation=0.5, memory=1.0)
GOALS = (
    Goal(figure="linear_regret_ratio", op="<=", limit=1.0),
    Goal(figure="binary_regret_ratio", op="<=", limit=1.0),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Bandit:
    """Hold one seed's world.

    Attributes:
        arms: Feature vectors, [arms, width].
        weights: True weights, [width].
        is_binary: Whether rewards are clicks.
    """

    arms: FloatArray
    weights: FloatArray
    is_binary: bool

    @classmethod
    def of(cls, seed: int, *, is_binary: bool) -> "Bandit":
        """Draw the world of a seed."""
        rng = np.random.default_rng(seed)
        arms = rng.standard_normal((NUM_ARMS, WIDTH))
        arms /= np.linalg.norm(arms, axis=1, keepdims=True)
        return cls(arms=arms, weights=rng.standard_normal(WIDTH), is_binary=is_binary)

    @property
    def means(self) -> FloatArray:
        """Return each arm's expected reward."""
        scores = self.arms @ self.weights
        return expit(scores) if self.is_binary else scores


def regret(bandit: Bandit, *, seed: int, rounds: int, width: float) -> float:
    """Return the regret of playing draws of this width; 0 plays the mean.

    The posterior takes in rows every few rounds, as a model that is trained now and then does.
    """
    noise, means = np.random.default_rng(1_000_000 + seed), bandit.means
    posterior = Posterior.start(np.zeros(WIDTH), config=CONFIG)
    sampler = posterior.sampler()
    played: list[int] = []
    rewards: list[float] = []
    total = 0.0
    for round_ in range(rounds):
        member = session_generator(f"member-{seed}", hour=round_)
        weights = sampler.draw(member, width=width)[0]
        arm = int(np.argmax(bandit.arms @ weights))
        played.append(arm)
        rewards.append(_reward(means[arm], noise, is_binary=bandit.is_binary))
        total += float(means.max() - means[arm])
        if len(played) == ROUNDS_PER_UPDATE:
            update = posterior.update_binary if bandit.is_binary else posterior.update
            posterior = update(bandit.arms[played], np.array(rewards))
            sampler = posterior.sampler()
            played, rewards = [], []
    return total


def _reward(mean: float, rng: np.random.Generator, *, is_binary: bool) -> float:
    """Draw the reward of a round."""
    if is_binary:
        return float(rng.random() < mean)
    return float(mean + CONFIG.noise_deviation * rng.standard_normal())


def regrets(*, seeds: int, rounds: int, is_binary: bool) -> FloatArray:
    """Return each seed's regret of Thompson and of greedy, [seeds, 2]."""
    worlds = [Bandit.of(seed, is_binary=is_binary) for seed in range(seeds)]
    return np.array(
        [
            [regret(world, seed=seed, rounds=rounds, width=width) for width in (1.0, 0.0)]
            for seed, world in enumerate(worlds)
        ]
    )


def main(arguments: list[str]) -> int:
    """Print the table; return 0 if exploring paid for both kinds of reward."""
    seeds, rounds = (int(a) for a in arguments) if arguments else (100, 2000)
    figures: dict[str, float | None] = {"seeds": float(seeds), "rounds": float(rounds)}
    for kind in ("linear", "binary"):
        table = regrets(seeds=seeds, rounds=rounds, is_binary=kind == "binary")
        thompson, greedy = table.mean(axis=0)
        difference = table[:, 1] - table[:, 0]
        figures[f"{kind}_thompson_regret"] = float(thompson)
        figures[f"{kind}_greedy_regret"] = float(greedy)
        figures[f"{kind}_regret_ratio"] = float(thompson / greedy)
        error = difference.std(ddof=1) / seeds**0.5
        figures[f"{kind}_difference_in_errors"] = float(difference.mean() / error)
        figures[f"{kind}_seeds_won"] = float((difference > 0).mean())
    return 0 if print_result("bandit", figures, goals=GOALS) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
