"""HDET's scheduler in the place of torch's OneCycleLR: same signature, steps, errors and resume."""

import inspect
import json
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from ml.training.hdet.config import HdetConfig
from ml.training.hdet.scheduler import HDETScheduler
from tests.ml.replica_threads import ThreadReplicas, on_replicas

STEPS = 40
NO_SPREAD = HdetConfig(spread_fraction=0.0, auto_lr=False)


def _optimizer(kind: str = "sgd") -> Optimizer:
    groups = [{"params": [nn.Parameter(torch.zeros(2))]} for _ in range(2)]
    if kind == "sgd":
        return torch.optim.SGD(groups, lr=1.0, momentum=0.5)
    if kind == "adam":
        return torch.optim.AdamW(groups, lr=1.0)
    return torch.optim.Adagrad(groups, lr=1.0)


def _values(optimizer: Optimizer) -> list[tuple[float, float]]:
    """Return learning rate and momentum of each group."""
    return [
        (float(group["lr"]), group["betas"][0] if "betas" in group else group["momentum"])
        for group in optimizer.param_groups
    ]


def _trace(scheduler: LRScheduler, steps: int = STEPS) -> list[list[tuple[float, float]]]:
    seen = [_values(scheduler.optimizer)]
    for _ in range(steps - 1):
        scheduler.optimizer.step()
        scheduler.step()
        assert scheduler.get_last_lr() == [rate for rate, _ in _values(scheduler.optimizer)]
        seen.append(_values(scheduler.optimizer))
    return seen


def test_takes_the_arguments_of_one_cycle_first() -> None:
    theirs = list(inspect.signature(OneCycleLR).parameters.values())
    ours = list(inspect.signature(HDETScheduler).parameters.values())
    first = ours[: len(theirs)]
    assert [p.name for p in first] == [p.name for p in theirs]
    assert [p.default for p in first] == [p.default for p in theirs]
    assert [p.kind for p in first] == [p.kind for p in theirs]
    assert all(p.kind is p.KEYWORD_ONLY and p.default is None for p in ours[len(theirs) :])


@pytest.mark.parametrize("kind", ["sgd", "adam"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"anneal_strategy": "linear", "pct_start": 0.1},
        {"three_phase": True, "div_factor": 10.0, "final_div_factor": 50.0},
        {"cycle_momentum": False},
        {"base_momentum": [0.7, 0.8], "max_momentum": [0.9, 0.99]},
    ],
)
def test_a_lone_replica_without_spread_equals_one_cycle_step_for_step(
    kind: str, settings: dict[str, Any]
) -> None:
    theirs = _trace(OneCycleLR(_optimizer(kind), [0.1, 0.3], total_steps=STEPS, **settings))
    ours = _trace(HDETScheduler(_optimizer(kind), [0.1, 0.3], total_steps=STEPS, **settings))
    for mine, reference in zip(ours, theirs, strict=True):
        assert mine == [pytest.approx(pair, rel=1e-12) for pair in reference]


def test_is_a_scheduler_of_torch_and_counts_steps_like_one() -> None:
    scheduler, reference = (
        kind(_optimizer(), 0.1, total_steps=STEPS) for kind in (HDETScheduler, OneCycleLR)
    )
    assert isinstance(scheduler, LRScheduler)
    for _ in range(3):
        assert scheduler.last_epoch == reference.last_epoch
        assert scheduler._step_count == reference._step_count
        assert scheduler.base_lrs == pytest.approx(reference.base_lrs)
        for one in (scheduler, reference):
            one.optimizer.step()
            one.step()
    assert scheduler.last_epoch == 3


def test_construction_takes_no_step_that_a_subclass_could_notice() -> None:
    class Watched(HDETScheduler):
        steps = 0

        def step(self, loss: torch.Tensor | float | None = None) -> None:
            Watched.steps += 1

    Watched(_optimizer(), 0.1, total_steps=STEPS)
    assert Watched.steps == 0


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_resuming_by_last_epoch_equals_one_cycle(kind: str) -> None:
    """As torch does: bounds come from the groups, the first step is the one after last_epoch."""
    traces = []
    for scheduler_kind in (OneCycleLR, HDETScheduler):
        first = scheduler_kind(_optimizer(kind), [0.1, 0.3], total_steps=STEPS)
        _trace(first, steps=12)
        optimizer = _optimizer(kind)
        optimizer.load_state_dict(first.optimizer.state_dict())
        resumed = scheduler_kind(optimizer, 77.0, total_steps=STEPS, last_epoch=11)
        assert resumed.last_epoch == 12
        traces.append(_trace(resumed, steps=STEPS - 12))
    for mine, reference in zip(traces[1], traces[0], strict=True):
        assert mine == [pytest.approx(pair, rel=1e-12) for pair in reference]


def test_resuming_by_state_dict_equals_one_cycle() -> None:
    first = HDETScheduler(_optimizer(), 0.1, total_steps=STEPS)
    whole = _trace(first, steps=12)
    resumed = HDETScheduler(_optimizer(), 0.1, total_steps=STEPS)
    resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert resumed.last_epoch == 11
    assert _values(resumed.optimizer) == whole[-1]
    assert resumed.get_last_lr() == first.get_last_lr()


@pytest.mark.parametrize(
    ("error", "arguments"),
    [
        (ValueError, {"kind": "adagrad", "total_steps": 4}),
        (ValueError, {}),
        (ValueError, {"epochs": 3}),
        (ValueError, {"total_steps": 0}),
        (ValueError, {"total_steps": 2.5}),
        (ValueError, {"epochs": 0, "steps_per_epoch": 4}),
        (ValueError, {"total_steps": 4, "pct_start": 1.5}),
        (ValueError, {"total_steps": 4, "anneal_strategy": "steps"}),
        (ValueError, {"total_steps": 4, "max_lr": [0.1, 0.1, 0.1]}),
        (ValueError, {"total_steps": 4, "max_momentum": [0.9]}),
        (KeyError, {"total_steps": 4, "last_epoch": 2}),
        (TypeError, {"kind": "none", "total_steps": 4}),
    ],
)
def test_refuses_what_one_cycle_refuses_with_the_same_error(
    error: type[Exception], arguments: dict[str, Any]
) -> None:
    settings = {"max_lr": 0.1, **arguments}
    kind = settings.pop("kind", "sgd")
    for scheduler in (OneCycleLR, HDETScheduler):
        optimizer: Any = object() if kind == "none" else _optimizer(kind)
        with pytest.raises(error):
            scheduler(optimizer, **settings)


def test_stepping_past_the_end_raises_the_error_of_one_cycle() -> None:
    for kind in (OneCycleLR, HDETScheduler):
        scheduler = kind(_optimizer(), 0.1, total_steps=3)
        for _ in range(3):
            scheduler.optimizer.step()
            scheduler.step()
        with pytest.raises(ValueError, match="3"):
            scheduler.step()


def test_a_tensor_learning_rate_is_filled_in_place() -> None:
    rate = torch.tensor(1.0)
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=rate)
    held = optimizer.param_groups[0]["lr"]
    scheduler = HDETScheduler(optimizer, 0.1, total_steps=STEPS)
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] is held
    assert float(held) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-6)


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_momentum_follows_the_cycle_alone_whatever_the_controller_does(kind: str) -> None:
    """The rule for cycle_momentum: no multiplier, no place, equal on all replicas."""
    reference = _trace(OneCycleLR(_optimizer(kind), 0.1, total_steps=STEPS))
    config = HdetConfig(sync_steps=4, gain=5.0, sigma=1e-3)

    def run(replicas: ThreadReplicas) -> tuple[list[list[tuple[float, float]]], list[float]]:
        optimizer = _optimizer(kind)
        scheduler = HDETScheduler(
            optimizer,
            0.1,
            total_steps=STEPS,
            config=config,
            collectives=replicas,
            probe=lambda _: torch.tensor([optimizer.param_groups[0]["lr"]] * 5),
        )
        return _trace(scheduler), scheduler.state_dict()["multipliers"]

    for trace, multipliers in on_replicas(2, run):
        assert multipliers[0] < 0.5
        for mine, theirs in zip(trace, reference, strict=True):
            assert [momentum for _, momentum in mine] == pytest.approx([m for _, m in theirs])
