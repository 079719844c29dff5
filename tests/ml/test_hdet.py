"""HDET's scheduler on replicas: what it promises, and the published scheduler's defects.

Replicas are threads that really exchange tensors; test_training_processes.py runs a process group.
"""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ml.training.collectives import SingleReplica
from ml.training.hdet.controller import HdetConfig
from ml.training.hdet.scheduler import HDETScheduler, SyncReport, perturb
from tests.ml.hdet_replica import STEPS, Replica, torch_rates
from tests.ml.replica_threads import ThreadReplicas, on_replicas

FIXED = HdetConfig(auto_lr=False, sync_steps=4)
AUTO = HdetConfig(auto_lr=True, sync_steps=4)


def _run(size: int, config: HdetConfig, **options: Any) -> list[tuple[Tensor, list[SyncReport]]]:
    def one(replicas: ThreadReplicas) -> tuple[Tensor, list[SyncReport]]:
        replica = Replica(replicas, config, **options)
        reports = replica.run()
        return replica.parameters, reports

    return on_replicas(size, one)


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("gradient_sync", ["shared", "local"])
def test_replicas_differ_before_a_converge_and_are_equal_after(
    size: int, gradient_sync: str
) -> None:
    config = HdetConfig(sync_steps=4, gradient_sync=gradient_sync)
    results = _run(size, config)
    reports = results[0][1]
    assert len(reports) == STEPS // 4
    assert all(report.difference_before > 0 for report in reports)
    assert all(report.difference_after == 0 for report in reports)
    assert all(torch.equal(results[0][0], other) for other, _ in results)


def test_fan_out_spreads_the_first_step() -> None:
    """Defect 1: scaling base_lrs changes nothing until the controller starts."""
    rates = on_replicas(3, lambda r: Replica(r, FIXED).scheduler.get_last_lr())
    envelope = 0.05 / 25
    assert [rate[0] for rate in rates] == pytest.approx(
        [envelope * 8 / 9, envelope, envelope * 10 / 9]
    )


def test_converges_without_the_controller() -> None:
    """Defect 2: no averaging when auto-LR is off."""
    reports = _run(2, FIXED)[0][1]
    assert [report.step for report in reports] == [4, 8, 12, 16, 20, 24]
    assert all(report.losses == [] and report.difference_after == 0 for report in reports)
    assert all(report.multipliers == [1.0, 1.0] for report in reports)


def test_the_mean_learning_rate_follows_one_cycle_when_there_is_no_push() -> None:
    """Defect 3: gamma of the wrong sign lets the learning rate grow at each sync."""

    def rates(replicas: ThreadReplicas) -> list[float]:
        equal = torch.ones(50, dtype=torch.float64)
        replica = Replica(replicas, AUTO, probe=lambda _: equal)
        seen = []
        for number in range(STEPS):
            seen.append(replica.scheduler.get_last_lr()[0])
            replica.step(number)
        return seen

    mean = torch.tensor(on_replicas(2, rates)).mean(dim=0)
    torch.testing.assert_close(mean, torch.tensor(torch_rates(0.05)))


def test_total_steps_may_come_from_epochs() -> None:
    """Defect 4: total_steps=None crashes."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = HDETScheduler(optimizer, 0.1, epochs=3, steps_per_epoch=5, cycle_momentum=False)
    assert scheduler.total_steps == 15
    with pytest.raises(ValueError, match="epochs and steps_per_epoch"):
        HDETScheduler(optimizer, 0.1)


def test_leaves_the_global_random_state_alone() -> None:
    """Defect 5: the constructor reseeds, and permutations draw from the global generator."""
    torch.manual_seed(77)
    before = torch.random.get_rng_state()
    _run(2, AUTO)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_places_agree_on_all_replicas_although_they_draw_random_numbers() -> None:
    """Defect 5, continued: ranks that draw differently must not fall out of step."""

    def places(replicas: ThreadReplicas) -> list[list[list[int]]]:
        replica = Replica(replicas, AUTO)
        seen = []
        for number in range(STEPS):
            torch.rand(1 + replicas.rank)
            replica.step(number)
            seen.append(replica.scheduler.state_dict()["places"])
        return seen

    first, *others = on_replicas(4, places)
    assert all(other == first for other in others)
    assert any(groups[0] != groups[1] for groups in first)


def test_construction_exchanges_nothing_and_a_step_without_loss_works() -> None:
    """Defect 6: an all-reduce inside the constructor, and step(None) failing at a sync."""

    class Silent(SingleReplica):
        size = 2

        def sum(self, tensor: Tensor) -> Tensor:
            raise AssertionError("exchanged at construction")

        gather = maximum = sum

    Replica(Silent(), AUTO)

    def without_loss(replicas: ThreadReplicas) -> list[SyncReport | None]:
        replica = Replica(replicas, HdetConfig(sync_steps=2))
        return [replica.scheduler.step() for _ in range(4)]

    reports = on_replicas(2, without_loss)[0]
    assert [report is not None for report in reports] == [False, True, False, True]


def test_the_first_sync_already_steers() -> None:
    """Defect 6, continued: all learning rates are equal at the first sync, which moves nothing."""

    def run(replicas: ThreadReplicas) -> SyncReport:
        config = HdetConfig(sync_steps=4, sigma=0.1)
        losses = torch.full((5,), 1.0 - 0.2 * replicas.rank).double()
        return Replica(replicas, config, probe=lambda _: losses).run(stop=4)[0]

    # Replica 1 is faster by 2/9 of the mean and better by 2 sigma; beta = 0.9, lambda = 0.5.
    push = (1 / (1 + math.exp(-2)) - 0.5) * 2 / 9
    report = on_replicas(2, run)[0]
    assert report.step == 4
    assert report.multipliers == pytest.approx([math.exp(0.05 * push)] * 2)


def test_no_spread_is_plain_data_parallel_and_the_replicas_agree_bit_for_bit() -> None:
    config = HdetConfig(spread_fraction=0.0, auto_lr=False, sync_steps=4)
    results = _run(3, config)

    def plain(replicas: ThreadReplicas) -> Tensor:
        replica = Replica(replicas, HdetConfig(auto_lr=False, sync_steps=10_000))
        rates = (torch_rates(0.05), torch_rates(0.02))
        for number in range(STEPS):
            for group, rate in zip(replica.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate[number]
            replica.step(number)
        return replica.parameters

    assert results[0][1] == []
    for (got, _), expected in zip(results, on_replicas(3, plain), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-13, atol=1e-14)
    assert all(torch.equal(results[0][0], got) for got, _ in results)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_mean_of_the_replicas_is_the_single_run_driven_by_the_same_gradients(
    optimizer: str,
) -> None:
    """Spec 2.4: with shared gradients the mean trajectory is that of the mean learning rate."""

    def run(replicas: ThreadReplicas | SingleReplica, config: HdetConfig) -> Tensor:
        replica = Replica(replicas, config, optimizer=optimizer)
        generator = torch.Generator().manual_seed(9)
        for _ in range(STEPS):
            for parameter in (replica.weight, replica.bias):
                parameter.grad = torch.randn(
                    parameter.shape, generator=generator, dtype=torch.float64
                )
            replica.optimizer.step()
            replica.scheduler.step()
        return replica.parameters

    spread_out = on_replicas(4, lambda r: run(r, HdetConfig(auto_lr=False, sync_steps=100)))
    single = run(SingleReplica(), HdetConfig(auto_lr=False))
    assert not torch.equal(spread_out[0], spread_out[3])
    torch.testing.assert_close(torch.stack(spread_out).mean(dim=0), single, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("size", "most"), [(2, 0.0), (4, 0.0), (3, 1.5e-7), (8, 1.5e-7)])
def test_averaging_equal_float32_replicas_changes_next_to_nothing(size: int, most: float) -> None:
    """Spec 2.7: exact for two and four replicas; for others 1.5e-7 relative, rounding of sums."""
    config = HdetConfig(auto_lr=False, sync_steps=1, gradient_sync="local", spread_fraction=0.0)
    start = torch.randn(1000, generator=torch.Generator().manual_seed(4))

    def run(replicas: ThreadReplicas) -> Tensor:
        parameter = nn.Parameter(start.clone())
        parameter.grad = torch.zeros_like(parameter)
        optimizer = torch.optim.Adam([parameter], lr=1.0)
        scheduler = HDETScheduler(
            optimizer, 0.1, total_steps=3, config=config, collectives=replicas
        )
        scheduler.step()
        return parameter.detach()

    averaged = on_replicas(size, run)
    assert float(((averaged[0] - start) / start).abs().max()) <= most
    assert all(torch.equal(got, averaged[0]) for got in averaged)


def test_local_mode_averages_the_moments_too() -> None:
    config = HdetConfig(auto_lr=False, sync_steps=4, gradient_sync="local")

    def moments(replicas: ThreadReplicas) -> tuple[Tensor, Tensor]:
        replica = Replica(replicas, config)
        replica.run(stop=3)
        apart = replica.optimizer.state[replica.weight]["exp_avg"].clone()
        replica.run(start=3, stop=4)
        return apart, replica.optimizer.state[replica.weight]["exp_avg"].clone()

    (apart_0, met_0), (apart_1, met_1) = on_replicas(2, moments)
    assert not torch.equal(apart_0, apart_1)
    assert torch.equal(met_0, met_1)


@pytest.mark.parametrize("faster_is_better", [True, False])
def test_the_controller_follows_the_better_replicas(faster_is_better: bool) -> None:
    def run(replicas: ThreadReplicas) -> list[float]:
        noise = torch.randn(64, generator=torch.Generator().manual_seed(1)).double() * 0.01

        def probe(_: int) -> Tensor:
            rates = replicas.gather(torch.tensor(replica.scheduler.get_last_lr()).double())
            relative = (rates[replicas.rank] / rates.mean(dim=0)).sum()
            gain = relative if faster_is_better else -relative
            return 0.5 - gain + noise * (1 + 0.1 * replicas.rank)

        replica = Replica(replicas, HdetConfig(sync_steps=2), probe=probe)
        return replica.run()[-1].multipliers

    multipliers = on_replicas(2, run)[0]
    assert (sum(multipliers) > 2) == faster_is_better


def test_one_replica_bypasses_everything() -> None:
    replica = Replica(SingleReplica(), AUTO)
    assert replica.run() == []
    assert replica.scheduler.sync() is None
    assert replica.scheduler.state_dict()["multipliers"] == [1.0, 1.0]


def test_few_replicas_need_a_probe_to_steer() -> None:
    def build(replicas: ThreadReplicas) -> None:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        with pytest.raises(ValueError, match="needs a probe"):
            HDETScheduler(optimizer, 0.1, total_steps=4, cycle_momentum=False, collectives=replicas)

    on_replicas(2, build)


def test_four_replicas_steer_by_their_training_losses() -> None:
    def run(replicas: ThreadReplicas) -> list[SyncReport]:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        scheduler = HDETScheduler(
            optimizer,
            0.1,
            total_steps=8,
            cycle_momentum=False,
            config=HdetConfig(sync_steps=8),
            collectives=replicas,
        )
        reports = [scheduler.step(1.0 - 0.1 * replicas.rank + 0.001 * n) for n in range(8)]
        return [report for report in reports if report is not None]

    report = on_replicas(4, run)[0][0]
    assert report.losses == pytest.approx([1.0035, 0.9035, 0.8035, 0.7035])
    assert report.variance_ratio > 9
    assert report.multipliers[0] > 1


def test_three_healthy_replicas_of_four_do_not_steer_by_their_training_losses() -> None:
    def run(replicas: ThreadReplicas) -> SyncReport | None:
        scheduler = HDETScheduler(
            torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0),
            0.1,
            total_steps=8,
            config=HdetConfig(sync_steps=8),
            collectives=replicas,
        )
        for number in range(7):
            scheduler.step(1.0 - 0.1 * replicas.rank + 0.001 * number)
        return scheduler.sync(healthy=replicas.rank != 2)

    report = on_replicas(4, run)[0]
    assert report is not None
    assert report.left_out == [2]
    assert report.losses == []
    assert report.multipliers == [1.0]


def test_initial_noise_differs_by_replica_and_has_the_stated_size() -> None:
    start = torch.full((4000,), 2.0)

    def noisy(rank: int) -> Tensor:
        parameter = nn.Parameter(start.clone())
        perturb([parameter], fraction=0.01, seed=3, rank=rank)
        return parameter.detach() - start

    assert float(noisy(0).std()) == pytest.approx(0.02, rel=0.05)
    assert not torch.equal(noisy(0), noisy(1))
    assert torch.equal(noisy(1), noisy(1))


def test_stepping_past_the_cycle_is_refused() -> None:
    replica = Replica(SingleReplica(), FIXED)
    replica.run()
    with pytest.raises(ValueError, match="is over"):
        replica.scheduler.step()
