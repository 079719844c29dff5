"""The sizes of the HDET bench, fixed before anything was measured, each with its reason."""

import math
from dataclasses import dataclass, field, replace

from ml.ranking.sequence_ranker import recipes
from ml.ranking.sequence_ranker.recipes import RankerConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Size every fit of the bench.

    Attributes:
        recipe: Model, item dropout, weight decay, clipping and the cycle's shape. AttnMVP of half
            its width: some 12 s for a fit on one core, so that all cells are a matter of an hour
            or two for each source.
        replicas: Replicas of HDET. Four is the least from which the controller may do without a
            probe, so that the published variant, which has none, can be run as it was published.
        replica_events: Events of one part. A step takes `replicas` parts: HDET one for each
            replica, a single run all of them, so that examples and passes are the same.
        steps: Optimiser steps: about two epochs of both sources. The leaderboard's choices stop
            after one to three.
        sync_steps: Steps between converges (T): 20 syncs (K).
        spread_fraction: Half width of the rates (alpha), large, so that a sync can move the rate.
        gain: Weight of the velocity (lambda).
        momentum_fraction: Momentum of the velocity (beta). The published 0.9 takes ten syncs to
            get up to speed, half of all there are.
        probe_events: Events of the probe: as many as a step has, some 20 to 35 sequences.
    """

    recipe: RankerConfig = field(default_factory=lambda: narrowed(recipes.attn_mvp()))
    replicas: int = 4
    replica_events: int = 256
    steps: int = 400
    sync_steps: int = 20
    spread_fraction: float = 0.5
    gain: float = 1.0
    momentum_fraction: float = 0.5
    probe_events: int = 1024

    def __post_init__(self) -> None:
        """Check that the controller can cross the whole sweep and come back (hdet 2.5, item 3).

        Raises:
            ValueError: If gain x spread x syncs is less than 2 ln 8.
        """
        if self.reach < 2 * math.log(8):
            raise ValueError(
                f"lambda alpha K = {self.reach:.2f} is less than 2 ln 8 = {2 * math.log(8):.2f}: "
                "take more steps, fewer steps between syncs, a larger gain or spread"
            )

    @property
    def reach(self) -> float:
        """Return lambda x alpha x K, the most that the logarithm of a rate can move."""
        return self.gain * self.spread_fraction * (self.steps // self.sync_steps)

    @property
    def probe_fraction(self) -> float:
        """Return the probes' share of a training's compute, a forward pass being a third."""
        return self.probe_events / (3 * self.sync_steps * self.replica_events)

    @property
    def longer_steps(self) -> int:
        """Return the steps of a single run that may also spend what the probes cost."""
        return math.ceil(self.steps * (1 + self.probe_fraction))

    @property
    def warmup_steps(self) -> int:
        """Return the steps in which a single run's rate rises."""
        return int(self.recipe.training.warmup_fraction * self.steps)

    @property
    def description(self) -> str:
        """Return all that a fit depends on, for its key; the recipe's own schedule is not of it."""
        training = self.recipe.training
        shape = training.warmup_fraction, training.div_factor, training.final_div_factor
        held = training.weight_decay, training.clip_norm
        sizes = self.replicas, self.replica_events, self.steps, self.sync_steps, self.probe_events
        return repr((self.recipe.model, self.recipe.batches, shape, held, sizes))

    @property
    def ema_decay(self) -> float:
        """Return the decay of the averaged weights: they remember about a tenth of the steps."""
        return 1 - 10 / self.steps

    @property
    def average_from(self) -> int:
        """Return the step from which SWA averages: the last quarter."""
        return self.steps - self.steps // 4


def narrowed(recipe: RankerConfig) -> RankerConfig:
    """Return a recipe of half the width."""
    model = recipe.model
    return replace(
        recipe,
        model=replace(model, width=model.width // 2, head_width=model.head_width // 2),
    )
