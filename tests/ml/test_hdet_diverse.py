"""HDET of other scalars than the learning rate, beside it or instead of it, and cooling."""

import copy
import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ml.configuration import from_json, to_json
from ml.layers.scalars import AttentionTemperature, LabelSmoothing
from ml.training.collectives import SingleReplica
from ml.training.hdet.config import HdetConfig
from ml.training.hdet.hyper_parameters import HyperParameter, hyper_parameters_of
from ml.training.hdet.scheduler import HDETScheduler, SyncReport
from tests.ml.hdet_replica import STEPS, Replica
from tests.ml.replica_threads import ThreadReplicas, on_replicas

NAMES = ("weight_decay", "dropout", "temperature", "label_smoothing")


class Box:
    """Hold a number that a scheduler may change."""

    def __init__(self, value: float = 0.2, *, name: str = "box", **limits: Any) -> None:
        """Start at a value."""
        self.value = value
        settings: dict[str, Any] = {"lowest": 0.01, "highest": 1.0, "spread_fraction": 0.5} | limits
        self.knob = HyperParameter(name=name, get=lambda: self.value, set=self._take, **settings)

    def _take(self, value: float) -> None:
        self.value = value


def _config(*diverse: str, **settings: Any) -> HdetConfig:
    return HdetConfig(**{"sync_steps": 4, "diverse": diverse, "auto_lr": False, **settings})


def _replica(
    replicas: ThreadReplicas | SingleReplica, config: HdetConfig, *boxes: Box, **options: Any
) -> Replica:
    knobs = {box.knob.name: box.knob for box in boxes}
    return Replica(replicas, config, hyper_parameters=knobs, **options)


@pytest.mark.parametrize("size", [2, 4])
def test_a_value_instead_of_the_learning_rate_spreads_around_its_mean(size: int) -> None:
    def run(replicas: ThreadReplicas) -> tuple[float, list[float], SyncReport]:
        box = Box()
        replica = _replica(replicas, _config("box"), box)
        value, rates = box.value, replica.scheduler.get_last_lr()
        return value, rates, replica.run()[0]

    results = on_replicas(size, run)
    expected = {2: [0.1, 0.3], 4: [0.1, 0.2 * 5 / 6, 0.2 * 7 / 6, 0.3]}[size]
    assert sorted(value for value, _, _ in results) == pytest.approx(expected)
    assert all(rates == pytest.approx([0.05 / 25, 0.02 / 25]) for _, rates, _ in results)
    report = results[0][2]
    assert report.hyper_values == {"box": pytest.approx([value for value, _, _ in results])}
    assert report.hyper_multipliers == {"box": 1.0}


def test_values_beside_the_learning_rate_have_places_of_their_own() -> None:
    """What else is diverse, and in which order, does not change a value's own places."""
    config = _config("learning_rate", "box", "crate", auto_lr=True)
    other = _config("crate", "box", auto_lr=True)

    def run(replicas: ThreadReplicas, config: HdetConfig) -> list[dict[str, Any]]:
        boxes = Box(), Box(name="crate")
        replica = _replica(replicas, config, *boxes, probe=lambda _: torch.ones(5))
        states = [copy.deepcopy(replica.scheduler.state_dict())]
        for number in range(STEPS):
            if replica.step(number) is not None:
                states.append(copy.deepcopy(replica.scheduler.state_dict()))
        return states

    all_states = on_replicas(4, lambda r: run(r, config))
    assert all(states == all_states[0] for states in all_states)
    channels = [dict(zip(state["names"], state["places"], strict=True)) for state in all_states[0]]
    assert len({tuple(places) for state in channels[1:] for places in state.values()}) > 10
    assert any(state["box"] != state["learning_rate.0"] for state in channels)
    assert any(state["box"] != state["crate"] for state in channels)
    for state, places in zip(on_replicas(4, lambda r: run(r, other))[0], channels, strict=True):
        assert state["names"][2:] == ["crate", "box"]
        assert state["places"][2:] == [places["crate"], places["box"]]


def test_each_value_is_steered_by_its_own_places() -> None:
    """Losses that know the box alone move the box, down, and leave the learning rate in place."""
    config = _config("learning_rate", "box", auto_lr=True, sync_steps=1, sigma=0.01)

    def run(replicas: ThreadReplicas) -> SyncReport:
        box = Box()
        replica = _replica(
            replicas, config, box, probe=lambda _: torch.full((5,), box.value).double()
        )
        return replica.run()[-1]

    report = on_replicas(4, run)[0]
    assert report.hyper_multipliers["box"] < 0.3
    assert report.multipliers == pytest.approx([1.0, 1.0], abs=0.35)
    assert report.learning_rates[0][0] != report.learning_rates[1][0]


@pytest.mark.parametrize("update", ["multiplicative", "additive"])
def test_values_and_what_is_learned_stay_within_the_limits(update: str) -> None:
    config = _config("box", auto_lr=True, sync_steps=1, sigma=0.001, gain=5.0, update=update)

    def run(replicas: ThreadReplicas) -> tuple[list[SyncReport], float]:
        box = Box(lowest=0.05, highest=0.25)
        replica = _replica(
            replicas, config, box, probe=lambda _: torch.full((5,), -box.value).double()
        )
        return replica.run(), box.value

    reports, _ = on_replicas(2, run)[0]
    values = [value for report in reports for value in report.hyper_values["box"]]
    assert max(values) == 0.25
    assert min(values) >= 0.05
    assert max(report.hyper_multipliers["box"] for report in reports) == pytest.approx(1.25)


def test_the_extra_decay_is_the_learning_rates_alone() -> None:
    config = _config("learning_rate", "box", auto_lr=True, decay_fraction=0.1)

    def run(replicas: ThreadReplicas) -> SyncReport:
        return _replica(replicas, config, Box(), probe=lambda _: torch.ones(5)).run()[0]

    report = on_replicas(2, run)[0]
    assert report.multipliers == pytest.approx([0.9, 0.9])
    assert report.hyper_multipliers == {"box": pytest.approx(1.0)}


def test_at_rest_all_replicas_hold_the_mean_and_go_back_to_their_places() -> None:
    def run(replicas: ThreadReplicas) -> tuple[float, float, float, float]:
        box = Box()
        scheduler = _replica(replicas, _config("box"), box).scheduler
        state = scheduler.state_dict()
        scheduler.load_state_dict(state | {"multipliers": [1.0, 1.0, 1.5]})
        before, within = box.value, math.nan
        with pytest.raises(RuntimeError, match="stop"), scheduler.rest():
            within = box.value
            raise RuntimeError("stop")
        after = box.value
        scheduler.settle()
        return before, within, after, box.value

    results = on_replicas(2, run)
    assert sorted(before for before, *_ in results) == pytest.approx([0.15, 0.45])
    for before, within, after, settled in results:
        assert within == settled == pytest.approx(0.3)
        assert before == after


def test_one_replica_keeps_a_value_at_what_was_learned() -> None:
    box = Box()
    scheduler = _replica(SingleReplica(), _config("box", auto_lr=True), box).scheduler
    assert box.value == pytest.approx(0.2)
    scheduler.load_state_dict(scheduler.state_dict() | {"multipliers": [1.0, 1.0, 2.0]})
    assert box.value == pytest.approx(0.4)


def test_resuming_with_other_values_equals_an_uninterrupted_run() -> None:
    config = _config("learning_rate", "box", auto_lr=True, sigma=0.05)

    def run(replicas: ThreadReplicas, stop: int | None) -> tuple[Tensor, float, dict[str, Any]]:
        box = Box()
        replica = _replica(replicas, config, box)
        if stop is not None:
            replica.run(stop=stop)
            state = json.loads(json.dumps(replica.scheduler.state_dict()))
            first, replica = replica, _replica(replicas, config, box)
            with torch.no_grad():
                replica.weight.copy_(first.weight)
                replica.bias.copy_(first.bias)
            replica.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
            replica.scheduler.load_state_dict(state)
        replica.run(start=stop or 0)
        return replica.parameters, box.value, replica.scheduler.state_dict()

    whole, halves = (on_replicas(2, lambda r, s=stop: run(r, s)) for stop in (None, 10))
    for (expected, value, state), (got, other, other_state) in zip(whole, halves, strict=True):
        assert torch.equal(expected, got)
        assert value == other
        assert state == other_state
        assert state["velocities"][2] != 0.0


def test_an_unknown_value_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no hyper-parameter 'bocks'.*'box', 'learning_rate'"):
        _replica(SingleReplica(), _config("bocks"), Box())


@pytest.mark.parametrize(
    ("size", "settings", "message"),
    [
        (4, {"probe": False}, "training losses do not compare .*'box'.*probe"),
        (4, {"gradient_sync": "shared"}, "'box'.* gradient_sync='local'"),
        (2, {"probe": False}, "fewer than four replicas needs a probe"),
        (4, {"auto_lr": False, "probe": False, "gradient_sync": "shared"}, None),
        (4, {}, None),
        (1, {"probe": False}, None),
    ],
)
def test_what_acts_while_training_only_is_steered_by_a_probe_in_local_mode_only(
    size: int, settings: dict[str, Any], message: str | None
) -> None:
    chosen = {"probe": True, "auto_lr": True, "gradient_sync": "local", **settings}
    has_probe = chosen.pop("probe")
    box = Box(only_while_training=True)

    def build(replicas: ThreadReplicas | SingleReplica) -> None:
        HDETScheduler(
            torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0),
            0.1,
            total_steps=4,
            config=_config("box", **chosen),
            collectives=replicas,
            probe=(lambda _: torch.ones(3)) if has_probe else None,
            hyper_parameters={"box": box.knob},
        )

    class Many(SingleReplica):
        pass

    many = Many()
    many.size = size
    if message is None:
        build(many)
    else:
        with pytest.raises(ValueError, match=message):
            build(many)


def test_what_acts_while_training_only_leaves_equal_weights_where_gradients_are_shared() -> None:
    """Why shared mode cannot steer it: replicas of different dropout hold the same model."""
    config = _config("box", sync_steps=100)

    def run(replicas: ThreadReplicas) -> tuple[Tensor, float]:
        box = Box(only_while_training=True)
        replica = _replica(replicas, config, box)
        for number in range(6):
            rows = replica.data[number] * (1 - box.value)
            replica.optimizer.zero_grad()
            replica.losses(rows).mean().backward()
            for parameter in (replica.weight, replica.bias):
                assert parameter.grad is not None
                parameter.grad.copy_(replicas.sum(parameter.grad) / 2)
            replica.optimizer.step()
            replica.scheduler.step()
        return replica.parameters, box.value

    (first, low), (second, high) = on_replicas(2, run)
    assert low != high
    assert torch.equal(first, second)


class Net(nn.Module):
    """A small classifier with the house's four scalars beside the learning rate."""

    def __init__(self) -> None:
        """Start from the same weights everywhere."""
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 1)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
        self.dropout = nn.Dropout(0.2)
        self.temperature, self.label_smoothing = AttentionTemperature(), LabelSmoothing()

    def forward(self, rows: Tensor) -> Tensor:
        hidden = self.dropout(torch.tanh(self.first(rows)))
        return self.second(self.temperature(hidden))[:, 0]


@pytest.mark.parametrize("size", [2, 4])
def test_all_house_scalars_together_train_meet_and_are_steered_with_the_learning_rate(
    size: int,
) -> None:
    config = _config(
        "learning_rate",
        *NAMES,
        auto_lr=True,
        gradient_sync="local",
        sigma=0.01,
        starts=(("label_smoothing", 0.05),),
    )
    assert from_json(HdetConfig, to_json(config)) == config
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(STEPS + 8, 16, 4, generator=generator)
    labels = (rows.sum(dim=2) > 0).float()

    def run(replicas: ThreadReplicas) -> tuple[list[SyncReport], Tensor, dict[str, float]]:
        model = Net()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1.0, weight_decay=0.01)
        knobs = hyper_parameters_of(
            config.diverse, model=model, optimizer=optimizer, starts=config.starts
        )
        entropy = nn.functional.binary_cross_entropy_with_logits

        def probe(sync: int) -> Tensor:
            model.eval()
            with torch.no_grad():
                losses = entropy(model(rows[STEPS]), labels[STEPS], reduction="none")
            model.train()
            return losses

        scheduler = HDETScheduler(
            optimizer,
            0.05,
            total_steps=STEPS,
            config=config,
            collectives=replicas,
            probe=probe,
            hyper_parameters=knobs,
        )
        reports = []
        for number in range(STEPS):
            optimizer.zero_grad()
            wanted = model.label_smoothing(labels[number])
            loss = entropy(model(rows[number]), wanted)
            loss.backward()
            optimizer.step()
            reports.append(scheduler.step(loss.detach()))
        flat = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
        with scheduler.rest():
            settled = {name: knob.get() for name, knob in knobs.items()}
        return [report for report in reports if report is not None], flat, settled

    results = on_replicas(size, run)
    reports, flat, settled = results[0]
    for others, other_flat, other_settled in results:
        assert torch.equal(flat, other_flat)
        assert settled == other_settled
        assert [r.hyper_multipliers for r in others] == [r.hyper_multipliers for r in reports]
    for report in reports:
        assert set(report.hyper_values) == set(NAMES)
        assert all(len(set(values)) == size for values in report.hyper_values.values())
        assert report.difference_after == 0.0
    assert all(multiplier != 1.0 for multiplier in reports[-1].hyper_multipliers.values())
    assert len(set(reports[-1].hyper_multipliers.values())) == len(NAMES)


def test_cooling_multiplies_all_rates_beyond_the_clamps_and_stays_in_the_state() -> None:
    config = _config("learning_rate", auto_lr=True, min_multiplier=0.9)

    def run(replicas: ThreadReplicas) -> tuple[list[float], list[float], list[SyncReport]]:
        replica = Replica(replicas, config, probe=lambda _: torch.ones(5))
        replica.run(stop=2)
        warm = replica.scheduler.get_last_lr()
        replica.scheduler.cool(0.5)
        replica.scheduler.cool(0.1)
        cold = replica.scheduler.get_last_lr()
        resumed = Replica(replicas, config, probe=lambda _: torch.ones(5))
        resumed.scheduler.load_state_dict(json.loads(json.dumps(replica.scheduler.state_dict())))
        assert resumed.scheduler.get_last_lr() == cold
        return warm, cold, resumed.run(start=2)

    for warm, cold, reports in on_replicas(2, run):
        assert cold == pytest.approx([0.05 * rate for rate in warm])
        assert all(report.cooling == pytest.approx(0.05) for report in reports)
        assert all(report.multipliers == [1.0, 1.0] for report in reports)


@pytest.mark.parametrize("factor", [0.0, 1.5, -1.0, math.nan])
def test_a_cooling_that_is_none_is_refused(factor: float) -> None:
    with pytest.raises(ValueError, match="at most 1"):
        Replica(SingleReplica(), HdetConfig()).scheduler.cool(factor)
