"""What HDET's replicas exchange at a meeting, what they measure, and whom they leave out."""

import math
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor import distribute_tensor

from ml.training.collectives import SingleReplica
from ml.training.hdet.config import HdetConfig
from ml.training.hdet.controller import fit_replicas
from ml.training.hdet.scheduler import HDETScheduler, SyncReport
from tests.ml.hdet_replica import Replica
from tests.ml.replica_threads import ThreadReplicas, on_replicas

SIZE = 1000


class Counting(ThreadReplicas):
    """Note the size of every exchange."""

    def __init__(self, replicas: ThreadReplicas) -> None:
        """Take the place of these replicas."""
        super().__init__(replicas.rank, replicas._board, replicas._barrier)
        self.sums: list[int] = []
        self.gathers: list[int] = []
        self._in_sum = False

    def gather(self, tensor: Tensor) -> Tensor:
        if not self._in_sum:
            self.gathers.append(tensor.numel())
        return super().gather(tensor)

    def sum(self, tensor: Tensor) -> Tensor:
        self.sums.append(tensor.numel())
        self._in_sum = True
        total = super().sum(tensor)
        self._in_sum = False
        return total

    def maximum(self, tensor: Tensor) -> Tensor:
        raise AssertionError("a converge needs no maximum of tensors")


class Holder:
    """Hold one parameter, an optimiser and a scheduler; gradients are given."""

    def __init__(
        self,
        replicas: ThreadReplicas | SingleReplica,
        start: Tensor,
        config: HdetConfig,
        *,
        adam: bool = True,
        steps: int = 100,
    ) -> None:
        """Start from a parameter."""
        self.parameter = nn.Parameter(start.clone())
        kind = torch.optim.Adam if adam else torch.optim.SGD
        self.optimizer = kind([self.parameter], lr=1.0)
        self.scheduler = HDETScheduler(
            self.optimizer,
            0.1,
            total_steps=steps,
            cycle_momentum=False,
            config=config,
            collectives=replicas,
        )

    def step(self, gradient: Tensor, loss: float | None = None) -> SyncReport | None:
        self.parameter.grad = gradient.clone()
        self.optimizer.step()
        return self.scheduler.step(loss)

    def moment(self) -> Tensor:
        return self.optimizer.state[self.parameter]["exp_avg"].clone()


@pytest.mark.parametrize(("mode", "most"), [("shared", SIZE), ("local", 3 * SIZE)])
def test_a_converge_is_one_exchange_of_the_model_and_two_of_a_few_numbers(
    mode: str, most: int
) -> None:
    config = HdetConfig(auto_lr=False, sync_steps=2, gradient_sync=mode)

    def run(replicas: ThreadReplicas) -> tuple[list[int], list[int]]:
        counting = Counting(replicas)
        holder = Holder(counting, torch.ones(SIZE), config)
        for _ in range(4):
            holder.step(torch.ones(SIZE))
        return counting.sums, counting.gathers

    for sums, gathers in on_replicas(2, run):
        assert sums == [most, most]
        assert len(gathers) == 4
        assert max(gathers) <= 8


def test_differences_are_the_largest_distance_from_the_mean_and_none_afterwards() -> None:
    config = HdetConfig(auto_lr=False, sync_steps=1, gradient_sync="local", spread_fraction=0.0)

    def run(replicas: ThreadReplicas) -> tuple[SyncReport | None, Tensor]:
        start = torch.tensor([[1.0, 5.0, -2.0], [3.0, 5.0, -8.0]])[replicas.rank]
        holder = Holder(replicas, start, config, adam=False)
        report = holder.step(torch.zeros(3))
        return report, holder.parameter.detach()

    for report, parameter in on_replicas(2, run):
        assert report is not None
        assert report.difference_before == 3.0
        assert report.difference_after == 0.0
        assert parameter.tolist() == [2.0, 5.0, -5.0]


def test_a_converge_that_leaves_replicas_different_says_by_how_much() -> None:
    class Lossy(ThreadReplicas):
        def sum(self, tensor: Tensor) -> Tensor:
            return super().sum(tensor) + self.rank

    config = HdetConfig(auto_lr=False, sync_steps=1)

    def run(replicas: ThreadReplicas) -> float:
        lossy = Lossy(replicas.rank, replicas._board, replicas._barrier)
        report = Holder(lossy, torch.ones(4), config).step(torch.ones(4))
        assert report is not None
        return report.difference_after

    assert on_replicas(2, run) == pytest.approx([0.5, 0.5])


def test_tensors_of_any_shape_and_format_come_back_as_they_were() -> None:
    config = HdetConfig(auto_lr=False, sync_steps=1, gradient_sync="local", spread_fraction=0.0)

    def run(replicas: ThreadReplicas) -> list[Tensor]:
        base = [torch.arange(6.0).view(2, 3).T, torch.tensor(2.0), torch.ones(2).bfloat16()]
        parameters = [nn.Parameter(tensor + replicas.rank) for tensor in base]
        optimizer = torch.optim.SGD(parameters, lr=1.0)
        scheduler = HDETScheduler(
            optimizer, 0.1, total_steps=2, config=config, collectives=replicas
        )
        scheduler.step()
        return [parameter.detach() for parameter in parameters]

    for matrix, scalar, halves in on_replicas(2, run):
        assert torch.equal(matrix, torch.arange(6.0).view(2, 3).T + 0.5)
        assert scalar == 2.5
        assert torch.equal(halves, torch.full((2,), 1.5, dtype=torch.bfloat16))


def test_local_mode_may_reset_the_moments() -> None:
    """After a reset the next Adam step is a first one: learning rate times the gradient's sign."""
    config = HdetConfig(auto_lr=False, sync_steps=3, gradient_sync="local", moments="reset")

    def run(replicas: ThreadReplicas) -> tuple[int, Tensor, float]:
        holder = Holder(replicas, torch.ones(4), config)
        for number in range(3):
            holder.step(torch.full((4,), number + replicas.rank + 1.0))
        left = len(holder.optimizer.state)
        before, rate = holder.parameter.detach().clone(), holder.scheduler.get_last_lr()[0]
        holder.step(torch.tensor([1.0, -1.0, 20.0, -1e-3]))
        return left, holder.parameter.detach() - before, rate

    for left, moved, rate in on_replicas(2, run):
        assert left == 0
        torch.testing.assert_close(moved, -rate * torch.tensor([1.0, -1.0, 1.0, -1.0]))


@pytest.mark.parametrize("mode", ["shared", "local"])
@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("cause", ["says so", "nan", "inf", "loss"])
def test_a_replica_that_is_not_healthy_takes_the_mean_of_the_others(
    mode: str, size: int, cause: str
) -> None:
    config = HdetConfig(auto_lr=False, sync_steps=50, gradient_sync=mode)

    def run(replicas: ThreadReplicas) -> tuple[Tensor, Tensor, Tensor, SyncReport | None]:
        holder = Holder(replicas, torch.ones(3), config)
        sick = replicas.rank == 1
        for _ in range(2):
            loss = math.nan if sick and cause == "loss" else 1.0
            holder.step(torch.tensor([1.0, 2.0, 3.0]), loss)
        if sick and cause in ("nan", "inf"):
            with torch.no_grad():
                holder.parameter[1] = float(cause)
            holder.optimizer.state[holder.parameter]["exp_avg"].fill_(math.nan)
        own = holder.parameter.detach().clone()
        report = holder.scheduler.sync(healthy=not (sick and cause == "says so"))
        return own, holder.parameter.detach().clone(), holder.moment(), report

    results = on_replicas(size, run)
    others = torch.stack([own for rank, (own, *_) in enumerate(results) if rank != 1])
    for _, parameter, moment, report in results:
        assert report is not None
        assert report.left_out == [1]
        assert report.difference_after == 0.0
        assert math.isfinite(report.difference_before)
        torch.testing.assert_close(parameter, others.mean(dim=0))
        torch.testing.assert_close(moment, torch.tensor([0.19, 0.38, 0.57]))


def test_with_no_healthy_replica_training_stops_with_a_remedy() -> None:
    def run(replicas: ThreadReplicas) -> None:
        holder = Holder(replicas, torch.ones(3), HdetConfig(auto_lr=False))
        holder.step(torch.ones(3))
        with pytest.raises(FloatingPointError, match="lower learning rate"):
            holder.scheduler.sync(healthy=False)

    on_replicas(2, run)


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        ([1.0, 3.1], [True, False]),
        ([1.0, 2.9], [True, True]),
        ([3.1, 1.0, 1.1, 0.9], [False, True, True, True]),
        ([9.0, 8.0, 1.0, 1.0, 1.0], [False, False, True, True, True]),
        ([1.0, math.nan], [True, False]),
        ([-1.0, 5.0], [True, True]),
    ],
)
def test_a_replica_diverged_if_its_loss_is_three_times_the_others_median(
    means: list[float], expected: list[bool]
) -> None:
    sums = torch.tensor([[10 * mean, 10 * mean**2, 10.0] for mean in means]).double()
    assert fit_replicas([True] * len(means), sums, divergence_factor=3.0) == expected


def test_a_few_steps_or_noisy_losses_do_not_tell_that_a_replica_diverged() -> None:
    few = torch.tensor([[7.0, 7.0, 7.0], [70.0, 700.0, 7.0]])
    assert fit_replicas([True, True], few, divergence_factor=3.0) == [True, True]
    # Ten losses of mean 1 and standard error 1: 4 is three of them away, 7 is six.
    noisy = [10.0, 100.0, 10.0]
    for worse, is_fit in ((4.0, True), (7.0, False)):
        sums = torch.tensor([noisy, [10 * worse, 10 * worse**2, 10.0]])
        assert fit_replicas([True, True], sums, divergence_factor=3.0) == [True, is_fit]


@pytest.mark.parametrize("size", [2, 4])
def test_a_diverged_replica_is_left_out_named_and_steers_nothing(size: int) -> None:
    config = HdetConfig(sync_steps=10, sigma=0.05)

    def run(replicas: ThreadReplicas) -> tuple[SyncReport, Tensor]:
        # The probe says that slower is better, and the last replica is worst of all.
        bad = replicas.rank == size - 1
        losses = torch.full((5,), 50.0 if bad else 1.0 + 0.1 * replicas.rank).double()
        replica = Replica(replicas, config, probe=lambda _: losses)
        report = None
        for number in range(10):
            for parameter in (replica.weight, replica.bias):
                parameter.grad = torch.ones_like(parameter)
            replica.optimizer.step()
            report = replica.scheduler.step(9.0 if bad else 1.0 + 0.01 * number)
        assert report is not None
        return report, replica.parameters

    results = on_replicas(size, run)
    for report, parameters in results:
        assert report.left_out == [size - 1]
        assert torch.equal(parameters, results[0][1])
        if size == 2:
            assert report.losses == []
            assert report.multipliers == [1.0, 1.0]
        else:
            assert report.losses[:3] == pytest.approx([1.0, 1.1, 1.2])
            assert math.isnan(report.losses[3])
            # Among places 0, 1, 2 alone: softmax(2, 0, -2) around their own mean.
            weights = torch.softmax(torch.tensor([2.0, 0.0, -2.0]), dim=0).tolist()
            factors = [1 - 1 / 9, 1 - 1 / 27, 1 + 1 / 27]
            push = (
                sum(w * f for w, f in zip(weights, factors, strict=True)) / (sum(factors) / 3) - 1
            )
            assert report.multipliers[0] == pytest.approx(math.exp(0.5 * 0.1 * push))


def test_replicas_of_different_state_are_refused_before_they_wait_for_each_other() -> None:
    config = HdetConfig(auto_lr=False, gradient_sync="local")

    def run(replicas: ThreadReplicas) -> None:
        holder = Holder(replicas, torch.ones(3), config)
        if replicas.rank == 0:
            holder.step(torch.ones(3))
        else:
            holder.scheduler.step()
        with pytest.raises(ValueError, match="a gradient on every replica"):
            holder.scheduler.sync()

    on_replicas(2, run)


@pytest.mark.parametrize("mode", ["shared", "local"])
def test_a_sick_replica_that_took_no_step_starts_all_moments_afresh(mode: str) -> None:
    config = HdetConfig(auto_lr=False, gradient_sync=mode)

    def run(replicas: ThreadReplicas) -> tuple[Tensor, int]:
        holder = Holder(replicas, torch.ones(3), config)
        if replicas.rank == 0:
            holder.step(torch.ones(3))
        else:
            holder.scheduler.step(math.nan)
        report = holder.scheduler.sync()
        assert report is not None
        assert report.left_out == [1]
        return holder.parameter.detach(), len(holder.optimizer.state)

    (first, left), (second, other_left) = on_replicas(2, run)
    assert torch.equal(first, second)
    assert float(first[0]) < 1.0
    assert left == other_left == 0


class _Two(SingleReplica):
    size = 2


@pytest.fixture
def process_group() -> Iterator[None]:
    store = dist.HashStore()  # pyright: ignore[reportPrivateImportUsage]
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("what", ["parameters", "state"])
def test_sharded_parameters_or_state_are_refused_with_a_remedy(what: str) -> None:
    weight = nn.Parameter(torch.ones(4))
    if what == "parameters":
        mesh = init_device_mesh("cpu", (1,))
        sharded = nn.Parameter(distribute_tensor(torch.ones(4), mesh))
        optimizer: torch.optim.Optimizer = torch.optim.SGD([sharded], lr=1.0)
    else:
        optimizer = ZeroRedundancyOptimizer([weight], torch.optim.SGD, lr=1.0)

    def build(config: HdetConfig) -> HDETScheduler:
        return HDETScheduler(
            optimizer,
            0.1,
            total_steps=4,
            cycle_momentum=False,
            config=config,
            collectives=_Two(),
        )

    with pytest.raises(ValueError, match=rf"{what}.* sharded .*spread_fraction=0.0, auto_lr=False"):
        build(HdetConfig(auto_lr=False))
    assert build(HdetConfig(spread_fraction=0.0, auto_lr=False)).get_last_lr() == pytest.approx(
        [0.004]
    )
