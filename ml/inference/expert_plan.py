"""Which experts to replicate and which to quantise so that memory does not grow.

Source: Replicate-and-Quantize; the exact aggregation and the guards are our choice, since the
authors published no code.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

# Shapes: L layers, M experts of a layer.

_ROUNDING = 1e-9
STRATEGIES = ("least_important", "random", "heaviest")


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpertSize:
    """Bytes of one expert, at full precision and quantised with its scales."""

    full_bytes: int
    quantised_bytes: int

    def __post_init__(self) -> None:
        """Check the invariants."""
        if not 0 < self.quantised_bytes < self.full_bytes:
            raise ValueError(
                f"a quantised expert ({self.quantised_bytes} bytes) must be smaller than a full "
                f"one ({self.full_bytes} bytes)"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanConfig:
    """How much to replicate, and which originals pay for it.

    Attributes:
        num_replicas: Replicas to add per layer.
        strategy: Which originals are quantised: `least_important`, or the two baselines
            `random` and `heaviest`.
        seed: Seed of the `random` strategy.
    """

    num_replicas: int = 1
    strategy: str = "least_important"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the invariants."""
        if self.num_replicas < 0:
            raise ValueError(f"num_replicas must not be negative, got {self.num_replicas}")
        if self.strategy not in STRATEGIES:
            raise ValueError(f"strategy must be one of {STRATEGIES}, got {self.strategy!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerPlan:
    """Hold the plan of one layer.

    Attributes:
        replicas: Instances of each expert, 1 for an expert without a replica. All but the first
            instance of an expert are quantised.
        quantised: Experts whose original is quantised, ascending.
    """

    replicas: tuple[int, ...]
    quantised: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check the invariants."""
        if min(self.replicas) < 1:
            raise ValueError(f"every expert needs an instance, got {self.replicas}")
        if any(self.replicas[expert] > 1 for expert in self.quantised):
            raise ValueError("a replicated original must keep its full precision")

    def num_bytes(self, size: ExpertSize) -> int:
        """Return the bytes of all instances of the layer."""
        extra = sum(self.replicas) - len(self.replicas)
        full = len(self.replicas) - len(self.quantised)
        return full * size.full_bytes + (extra + len(self.quantised)) * size.quantised_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Hold the plan of a model, one entry per sparse layer in order."""

    layers: tuple[LayerPlan, ...]

    def to_json(self) -> str:
        """Return the plan as JSON."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """Read a plan written by `to_json`."""
        return cls(
            layers=tuple(
                LayerPlan(replicas=tuple(row["replicas"]), quantised=tuple(row["quantised"]))
                for row in json.loads(text)["layers"]
            )
        )


def quantised_to_pay(num_replicas: int, *, size_ratio: float) -> int:
    """Return how many originals must be quantised to pay for the replicas: ceil(R p / (1 - p)).

    Args:
        num_replicas: R, the quantised replicas added.
        size_ratio: p, bytes of a quantised expert over those of a full one, scales included.

    Raises:
        ValueError: If quantising saves nothing.
    """
    if not 0 < size_ratio < 1:
        raise ValueError(f"size_ratio must lie between 0 and 1, got {size_ratio}")
    return math.ceil(num_replicas * size_ratio / (1 - size_ratio) - _ROUNDING)


def choose_replicas(counts_M: NDArray[np.int64] | Sequence[int], num_replicas: int) -> list[int]:
    """Give each replica in turn to the expert with the most tokens per instance.

    The lowest index wins a tie.
    """
    counts = np.asarray(counts_M, dtype=np.float64)
    copies = np.ones(len(counts), dtype=np.int64)
    for _ in range(num_replicas):
        copies[int(np.argmax(counts / copies))] += 1
    return copies.tolist()


def plan_layer(
    counts_M: NDArray[np.int64] | Sequence[int],
    importance_M: NDArray[np.float64] | Sequence[float],
    *,
    size: ExpertSize,
    config: PlanConfig | None = None,
) -> LayerPlan:
    """Plan one layer.

    Args:
        counts_M: Tokens that each expert got in the calibration.
        importance_M: Importance of each expert; the lowest are quantised first.
        size: Bytes of an expert of this layer.
        config: How much to replicate.

    Raises:
        ValueError: If too few experts are left to pay for the replicas.
    """
    config = config or PlanConfig()
    if len(counts_M) != len(importance_M):
        raise ValueError(f"{len(counts_M)} counts for {len(importance_M)} importances")
    replicas = choose_replicas(counts_M, config.num_replicas)
    needed = quantised_to_pay(
        config.num_replicas, size_ratio=size.quantised_bytes / size.full_bytes
    )
    candidates = [
        expert for expert in _payment_order(counts_M, importance_M, config) if replicas[expert] == 1
    ]
    if needed > len(candidates):
        raise ValueError(
            f"{config.num_replicas} replicas need {needed} quantised experts, only "
            f"{len(candidates)} are not replicated; ask for fewer replicas"
        )
    plan = LayerPlan(replicas=tuple(replicas), quantised=tuple(sorted(candidates[:needed])))
    if plan.num_bytes(size) > len(replicas) * size.full_bytes:
        raise ValueError(f"the plan needs {plan.num_bytes(size)} bytes, more than the original")
    return plan


def make_plan(
    counts_LM: NDArray[np.int64],
    importance_LM: NDArray[np.float64],
    *,
    size: ExpertSize,
    config: PlanConfig | None = None,
) -> Plan:
    """Plan every layer; the same input always gives the same plan."""
    if counts_LM.shape != importance_LM.shape:
        raise ValueError(f"counts are {counts_LM.shape}, importances {importance_LM.shape}")
    return Plan(
        layers=tuple(
            plan_layer(counts, importance, size=size, config=config)
            for counts, importance in zip(counts_LM, importance_LM, strict=True)
        )
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Replanning:
    """When to plan again, and on which traffic.

    Attributes:
        every: Batches between two plans.
        window: Newest batches that a plan looks at; None looks at all so far.
    """

    every: int = 64
    window: int | None = None

    def __post_init__(self) -> None:
        """Check the invariants."""
        if self.every < 1 or (self.window is not None and self.window < 1):
            raise ValueError(f"every and window must be at least 1, got {self}")


def plan_stream(
    counts_BLM: NDArray[np.int64],
    importance_LM: NDArray[np.float64],
    *,
    size: ExpertSize,
    config: PlanConfig | None = None,
    replanning: Replanning | None = None,
) -> list[tuple[int, Plan]]:
    """Plan again and again along a stream of batches (dynamic mode).

    Returns:
        (first batch that the plan serves, plan) pairs; each plan saw earlier batches only.
    """
    rule = replanning or Replanning()
    plans = []
    for start in range(rule.every, len(counts_BLM), rule.every):
        first = 0 if rule.window is None else max(0, start - rule.window)
        seen = counts_BLM[first:start].sum(axis=0)
        plans.append((start, make_plan(seen, importance_LM, size=size, config=config)))
    return plans


def _payment_order(
    counts: NDArray[np.int64] | Sequence[int],
    importance: NDArray[np.float64] | Sequence[float],
    config: PlanConfig,
) -> list[int]:
    if config.strategy == "random":
        return np.random.default_rng(config.seed).permutation(len(counts)).tolist()
    key = -np.asarray(counts) if config.strategy == "heaviest" else np.asarray(importance)
    return np.argsort(key, kind="stable").tolist()
