"""A Bayesian last layer: explore by drawing the last layer's weights from their posterior.

The features are what the network puts into its last layer. The posterior is Gaussian, starts
around the trained weights, and takes in the rows of each training in turn; forgetting draws it
back towards that start. At serving, one draw of the weights scores a whole request (Thompson
sampling). Everything is float64.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from scipy.linalg import cho_factor, cho_solve, cholesky, solve_triangular
from scipy.special import expit

from ml.features import FloatArray, IntArray

# Shapes: N rows, K features, R draws.
_NEWTON_STEPS = 50
_NEWTON_TOLERANCE = 1e-10


@dataclass(frozen=True, kw_only=True, slots=True)
class PosteriorConfig:
    """Say how sure the start is, how noisy rewards are, and how fast evidence fades.

    Attributes:
        prior_deviation: Standard deviation of each weight around the trained one.
        noise_deviation: Standard deviation of a reward around its mean; linear rewards only.
        memory: Share of the old evidence that an update keeps; 1 forgets nothing.
    """

    prior_deviation: float = 1.0
    noise_deviation: float = 1.0
    memory: float = 0.99

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If a deviation is not positive or the memory not within 0 and 1.
        """
        if min(self.prior_deviation, self.noise_deviation) <= 0 or not 0 <= self.memory <= 1:
            raise ValueError("deviations must be positive and memory within [0, 1]")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class WeightSampler:
    """Draw weights from a posterior, request after request.

    Attributes:
        mean: Mean weights, [K].
        factor: Lower Cholesky factor L of the precision, [K, K].
    """

    mean: FloatArray
    factor: FloatArray

    def draw(
        self, generator: np.random.Generator, *, draws: int = 1, width: float = 1.0
    ) -> FloatArray:
        """Return drawn weights, [R, K].

        A draw is mean + width * L'^-1 noise, whose covariance is width^2 times the posterior's.

        Args:
            generator: Source of the noise; `session_generator` makes it the member's for an hour.
            draws: Number of draws R.
            width: How far to explore; 0 gives the mean.
        """
        noise_KR = generator.standard_normal((draws, len(self.mean))).T
        spread_KR = solve_triangular(self.factor, noise_KR, lower=True, trans=1)  # 1: transposed
        return self.mean + width * spread_KR.T


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Posterior:
    """Hold a Gaussian over the last layer's weights, and the start it forgets towards.

    Attributes:
        precision: Inverse covariance A, [K, K].
        shift: A times the mean, [K].
        prior_mean: The trained weights, [K].
        config: Deviations and memory.
    """

    precision: FloatArray
    shift: FloatArray
    prior_mean: FloatArray
    config: PosteriorConfig

    @classmethod
    def start(cls, weights: FloatArray, *, config: PosteriorConfig) -> "Posterior":
        """Return the prior around trained weights [K].

        Raises:
            ValueError: If the weights are no finite vector.
        """
        mean = np.asarray(weights, np.float64)
        if mean.ndim != 1 or not np.isfinite(mean).all():
            raise ValueError("the last layer's weights must be one finite vector per head")
        precision = np.eye(len(mean)) / config.prior_deviation**2
        return cls(precision=precision, shift=precision @ mean, prior_mean=mean, config=config)

    @property
    def mean(self) -> FloatArray:
        """Return the mean weights, [K]."""
        return self.sampler().mean

    def update(self, features_NK: FloatArray, rewards_N: FloatArray) -> "Posterior":
        """Return the posterior after rows with linear rewards, exactly.

        Args:
            features_NK: Inputs of the last layer.
            rewards_N: Observed rewards.

        Raises:
            ValueError: If shapes differ or a value is not finite.

        Source: lirank 5.5.
        """
        features_NK, rewards_N = self._rows(features_NK, rewards_N)
        precision, shift = self._remembered()
        variance = self.config.noise_deviation**2
        return self._with(
            precision + features_NK.T @ features_NK / variance,
            shift + features_NK.T @ rewards_N / variance,
        )

    def update_binary(
        self, features_NK: FloatArray, labels_N: IntArray, *, added_N: FloatArray | None = None
    ) -> "Posterior":
        """Return the Laplace approximation after rows with labels 0 or 1, on the logit scale.

        The mean becomes the most probable weights, found by Newton steps from the old mean; the
        precision grows by Z' diag(p (1 - p)) Z there.

        Args:
            features_NK: Inputs of the last layer.
            labels_N: 0 or 1.
            added_N: What else adds to each row's logit, known for certain; nothing by default.

        Raises:
            ValueError: If shapes differ, a value is not finite, or a label is neither 0 nor 1.
            RuntimeError: If the Newton steps do not settle.

        Source: lirank 5.5.
        """
        features_NK, targets_N = self._rows(features_NK, labels_N)
        if not np.isin(targets_N, (0.0, 1.0)).all():
            raise ValueError("labels must be 0 or 1; use update for other rewards")
        precision, shift = self._remembered()
        added_N = _added(added_N, len(targets_N))
        rows = (features_NK, targets_N, added_N)
        weights = _most_probable(rows, precision=precision, shift=shift)
        grown = precision + _information(features_NK, added_N, weights)
        return self._with(grown, grown @ weights)

    def surer(self, features_NK: FloatArray, *, added_N: FloatArray | None = None) -> "Posterior":
        """Return the Laplace approximation after rows that the mean was fitted to already.

        The mean stays, since these rows have had their say; the precision grows by
        Z' diag(p (1 - p)) Z there. So the order of such rows, and their cutting into days, make
        no difference if nothing is forgotten.

        Args:
            features_NK: Inputs of the last layer.
            added_N: What else adds to each row's logit, known for certain; nothing by default.

        Raises:
            ValueError: If a shape is wrong or a value is not finite.

        Source: lirank 5.5.
        """
        features_NK, added_N = self._rows(features_NK, _added(added_N, len(features_NK)))
        precision, _ = self._remembered()
        mean = self.mean
        grown = precision + _information(features_NK, added_N, mean)
        return self._with(grown, grown @ mean)

    def sampler(self) -> "WeightSampler":
        """Return what draws weights from this posterior; it factors the precision once."""
        factor = cholesky(self.precision, lower=True)
        return WeightSampler(mean=cho_solve((factor, True), self.shift), factor=factor)

    def save(self, path: Path) -> None:
        """Write the posterior as safetensors."""
        config = self.config
        settings = [config.prior_deviation, config.noise_deviation, config.memory]
        arrays = {"precision": self.precision, "shift": self.shift, "prior_mean": self.prior_mean}
        save_file({**arrays, "config": np.array(settings)}, path)

    @classmethod
    def load(cls, path: Path) -> "Posterior":
        """Read a posterior written by `save`."""
        arrays = load_file(path)
        prior, noise, memory = arrays.pop("config").tolist()
        config = PosteriorConfig(prior_deviation=prior, noise_deviation=noise, memory=memory)
        return cls(**arrays, config=config)

    def _remembered(self) -> tuple[FloatArray, FloatArray]:
        """Return precision and shift, mixed with the prior's by what is forgotten."""
        keep = self.config.memory
        prior = 1 / self.config.prior_deviation**2
        precision = keep * self.precision + (1 - keep) * prior * np.eye(len(self.shift))
        return precision, keep * self.shift + (1 - keep) * prior * self.prior_mean

    def _with(self, precision: FloatArray, shift: FloatArray) -> "Posterior":
        """Return a posterior of the same start."""
        return Posterior(
            precision=(precision + precision.T) / 2,
            shift=shift,
            prior_mean=self.prior_mean,
            config=self.config,
        )

    def _rows(
        self, features_NK: FloatArray, targets_N: FloatArray | IntArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return both as float64.

        Raises:
            ValueError: If shapes differ or a value is not finite.
        """
        features = np.asarray(features_NK, np.float64)
        targets = np.asarray(targets_N, np.float64)
        if features.ndim != 2 or features.shape != (len(targets), len(self.shift)):
            raise ValueError(
                f"features are {features.shape} for {len(targets)} targets and "
                f"{len(self.shift)} weights; give one row of features per target"
            )
        if not (np.isfinite(features).all() and np.isfinite(targets).all()):
            raise ValueError("features and targets must be finite; check the network's outputs")
        return features, targets


def session_generator(member: str, *, hour: int) -> np.random.Generator:
    """Return the noise of a member's hour: the same for every request of it, on every machine.

    Heads that draw from one generator in turn explore independently.

    Args:
        member: Id of the member.
        hour: Hours since 1970, or any number that names the session.
    """
    digest = hashlib.blake2b(f"{hour}:{member}".encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def _added(added_N: FloatArray | None, rows: int) -> FloatArray:
    """Return what is added to the rows' logits, 0 if nothing is.

    Raises:
        ValueError: If there is not one finite number per row.
    """
    if added_N is None:
        return np.zeros(rows)
    if added_N.shape != (rows,) or not np.isfinite(added_N).all():
        raise ValueError(f"give each of the {rows} rows one finite number that its logit adds")
    return np.asarray(added_N, np.float64)


def _information(features_NK: FloatArray, added_N: FloatArray, weights: FloatArray) -> FloatArray:
    """Return Z' diag(p (1 - p)) Z of the rows at some weights, [K, K]."""
    rate = expit(features_NK @ weights + added_N)
    return (features_NK * (rate * (1 - rate))[:, None]).T @ features_NK


def _most_probable(
    rows: tuple[FloatArray, FloatArray, FloatArray], *, precision: FloatArray, shift: FloatArray
) -> FloatArray:
    """Return the weights that maximise the logistic likelihood times the Gaussian.

    A Newton step is halved until the objective does not fall; it is concave, so this settles.

    Args:
        rows: Features [N, K], labels [N] and what is added to the logits [N].
        precision: Of the Gaussian.
        shift: Precision times its mean.

    Raises:
        RuntimeError: If it does not.
    """
    features_NK, labels_N, added_N = rows

    def objective(weights: FloatArray) -> float:
        logits = features_NK @ weights + added_N
        fit = labels_N @ logits - np.logaddexp(0, logits).sum()
        return float(fit + weights @ shift - weights @ precision @ weights / 2)

    weights = cho_solve(cho_factor(precision, lower=True), shift)
    for _ in range(_NEWTON_STEPS):
        rate = expit(features_NK @ weights + added_N)
        slope = features_NK.T @ (labels_N - rate) + shift - precision @ weights
        curvature = precision + _information(features_NK, added_N, weights)
        step = cho_solve(cho_factor(curvature, lower=True), slope)
        if slope @ step <= _NEWTON_TOLERANCE:
            return weights + step
        before = objective(weights)
        while objective(weights + step) < before and np.abs(step).max() > _NEWTON_TOLERANCE:
            step = step / 2
        weights = weights + step
    raise RuntimeError("the Laplace approximation did not settle; scale the features down")
