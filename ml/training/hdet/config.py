"""What HDET may vary, how often replicas meet, and what their losses may change."""

from dataclasses import dataclass

LEARNING_RATE = "learning_rate"


@dataclass(frozen=True, kw_only=True, slots=True)
class HdetConfig:
    """Say how replicas differ, how often they meet, and what their losses may change.

    Attributes:
        spread_fraction: Half width of the replicas' learning rates around the mean (alpha).
        sync_steps: Steps between converges (T).
        gradient_sync: "shared" (every step, as published) or "local" (only parameters meet).
        moments: What a converge does to the optimiser's moments in local mode: "average" or
            "reset", which starts the optimiser's state afresh. In shared mode they are equal.
        auto_lr: Whether the losses steer what is diverse, the learning rate or another value.
        auto_warmup_steps: Steps before the first steering.
        update: "multiplicative" (relative velocity) or "additive" (as published).
        momentum_fraction: Momentum of the velocity (beta).
        gain: Weight of the velocity (lambda).
        decay_fraction: Extra decay of the learning rate per sync (gamma).
        sigma: Temperature of the loss differences; None measures the noise and gates by it.
        significance: Variance ratio of replicas to noise below which nothing is steered.
        min_multiplier: Lower clamp of the learned factor on the envelope.
        max_multiplier: Upper clamp.
        noise_fraction: Relative size of the initial noise per replica (nu).
        seed: Seed of permutations and noise.
        diverse: Names of what differs between replicas: the learning rate, hyper-parameters of
            hyper_parameters.py, or both.
        starts: First values of hyper-parameters, (name, value); the model's own by default.
        divergence_factor: A replica whose mean loss since the last sync is above so many times
            the median of the others' is left out of the mean, and takes it.
    """

    spread_fraction: float = 1 / 9
    sync_steps: int = 50
    gradient_sync: str = "shared"
    moments: str = "average"
    auto_lr: bool = True
    auto_warmup_steps: int = 0
    update: str = "multiplicative"
    momentum_fraction: float = 0.9
    gain: float = 0.5
    decay_fraction: float = 0.0
    sigma: float | None = None
    significance: float = 9.0
    min_multiplier: float = 0.1
    max_multiplier: float = 10.0
    noise_fraction: float = 0.0
    seed: int = 0
    diverse: tuple[str, ...] = (LEARNING_RATE,)
    starts: tuple[tuple[str, float], ...] = ()
    divergence_factor: float = 3.0

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If a value is out of range.
        """
        fractions = ("spread_fraction", "momentum_fraction", "decay_fraction", "noise_fraction")
        for name in fractions:
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if self.sync_steps < 1:
            raise ValueError(f"sync_steps must be at least 1, got {self.sync_steps}")
        choices = {
            "gradient_sync": ("shared", "local"),
            "moments": ("average", "reset"),
            "update": ("multiplicative", "additive"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is one of {known}, not {getattr(self, name)!r}")
        if not 0 < self.min_multiplier <= 1 <= self.max_multiplier:
            raise ValueError("multiplier clamps must enclose 1 and be positive")
        if self.sigma is not None and self.sigma <= 0:
            raise ValueError(f"sigma must be positive, got {self.sigma}")
        self._check_diversity()

    @property
    def is_on(self) -> bool:
        """Return whether replicas may differ, or their losses steer anything."""
        differ = (self.spread_fraction, self.noise_fraction, self.auto_lr)
        return any(differ) or self.gradient_sync == "local"

    def _check_diversity(self) -> None:
        """Check what differs between replicas, and when a replica has diverged."""
        if len(set(self.diverse)) != len(self.diverse):
            raise ValueError(f"diverse names something twice: {self.diverse}")
        if unused := sorted({name for name, _ in self.starts} - set(self.diverse)):
            raise ValueError(f"starts has {unused}, which diverse does not name; add it there")
        if not self.divergence_factor > 1:
            raise ValueError(f"divergence_factor must be above 1, got {self.divergence_factor}")
