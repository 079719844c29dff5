"""AdaScale in a plain loop: SGD at S = 1, replicas, accumulation, elastic scale and resume.

Replicas are threads that really exchange tensors. The estimator alone is in test_gain_ratio.py,
convergence in test_adascale_quadratic.py, what is refused in test_adascale_refusals.py.
"""

import copy
import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ml.training.adascale import AdaScale
from ml.training.collectives import Collectives, SingleReplica
from ml.training.norms import square_norm
from tests.ml.adascale_steps import feed, one_parameter
from tests.ml.replica_threads import ThreadReplicas, on_replicas

# Shapes: T iterations, S base batches per step, R rows of a base batch, D columns.
STEPS, WIDTH = 30, 5


def _falling(step: int) -> list[float]:
    return [0.1 * (1 - step / STEPS), 0.02]


class Replica:
    """One replica of a small regression with momentum and weight decay."""

    def __init__(
        self, *, scale: int, replicas: Collectives | None = None, momentum: float = 0.9
    ) -> None:
        """Start from the same weights and data on every replica."""
        self.replicas = replicas or SingleReplica()
        generator = torch.Generator().manual_seed(5)
        self.weight = nn.Parameter(torch.randn(WIDTH, generator=generator, dtype=torch.float64))
        self.bias = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.data_TSRD = torch.randn(
            STEPS, 8, 4, WIDTH + 1, generator=generator, dtype=torch.float64
        )
        self.optimizer = torch.optim.SGD(
            [{"params": [self.weight]}, {"params": [self.bias], "weight_decay": 0.0}],
            lr=1.0,
            momentum=momentum,
            weight_decay=0.01,
        )
        self.adascale = AdaScale(
            self.optimizer,
            _falling,
            total_steps=STEPS,
            batches_per_step=scale,
            collectives=self.replicas,
        )

    def gradients(self, rows_RD: Tensor) -> list[Tensor]:
        residual = rows_RD[:, :WIDTH] @ self.weight + self.bias - rows_RD[:, WIDTH]
        return list(torch.autograd.grad(residual.square().mean(), [self.weight, self.bias]))

    def step(self) -> float:
        """Take one step over the next S base batches, of which each replica has its own."""
        scale = self.adascale.batches_per_step
        share = scale // self.replicas.size
        own = slice(self.replicas.rank * share, (self.replicas.rank + 1) * share)
        total = [torch.zeros_like(self.weight), torch.zeros_like(self.bias)]
        self.adascale.begin_step()
        for rows_RD in self.data_TSRD[self.adascale.iterations, :scale][own]:
            gradients = self.gradients(rows_RD)
            self.adascale.note_batch(gradients)
            total = [t + g for t, g in zip(total, gradients, strict=True)]
        mean = [self.replicas.sum(t) / scale for t in total]
        self.weight.grad, self.bias.grad = mean
        return self.adascale.step(mean)

    def run(self, iterations: int = STEPS) -> list[float]:
        """Step until the schedule or the given iterations are over; return the gains."""
        gains = []
        while not self.adascale.is_over and len(gains) < iterations:
            gains.append(self.step())
        return gains

    @property
    def state(self) -> Tensor:
        """Return parameters and momentum in one vector."""
        momenta = [s["momentum_buffer"] for s in self.optimizer.state.values()]
        return torch.cat([self.weight, self.bias, *momenta]).detach().clone()


def test_at_one_batch_per_step_it_is_sgd_bit_for_bit() -> None:
    replica, oracle = Replica(scale=1), Replica(scale=1)
    gains = replica.run()
    for step in range(STEPS):
        oracle.weight.grad, oracle.bias.grad = oracle.gradients(oracle.data_TSRD[step, 0])
        for group, rate in zip(oracle.optimizer.param_groups, _falling(step), strict=True):
            group["lr"] = rate
        oracle.optimizer.step()
    assert gains == [1.0] * STEPS
    assert torch.equal(replica.state, oracle.state)


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
def test_iterations_are_between_the_steps_over_the_scale_and_the_steps(scale: int) -> None:
    replica = Replica(scale=scale)
    gains = replica.run()
    assert math.ceil(STEPS / scale) <= len(gains) <= STEPS
    assert replica.adascale.iterations == len(gains)
    assert replica.adascale.tau == pytest.approx(sum(gains))
    assert STEPS <= sum(gains) < STEPS + scale
    assert replica.adascale.is_over


@pytest.mark.parametrize(
    ("gradients", "iterations"),
    [
        # No noise: every step counts once.
        ([[1.0, 2.0]] * 4, 23),
        # Noise only: after the first step every one counts for 4, so 1 + ceil(22 / 4).
        ([[1.0, 2.0], [-1.0, -2.0]] * 2, 7),
    ],
)
def test_iterations_at_both_limits(gradients: list[list[float]], iterations: int) -> None:
    adascale = one_parameter(4)
    while not adascale.is_over:
        feed(adascale, torch.tensor(gradients, dtype=torch.float64))
    assert adascale.iterations == iterations


def test_the_gain_multiplies_the_rates_scheduled_for_the_steps_done() -> None:
    replica = Replica(scale=4)
    tau = 0.0
    for _ in range(8):
        gain = replica.step()
        rates = [group["lr"] for group in replica.optimizer.param_groups]
        assert rates == [gain * rate for rate in _falling(math.floor(tau))]
        tau += gain
    assert 8 < tau < 32


def test_the_gain_is_the_formula_of_the_gradients_norms() -> None:
    """Gradients (3, 0) and (1, 0): sum of squares 10, mean (2, 0).

    sigma^2 = 10 - 2 x 4 = 2, mu^2 = 4 - 2 / 2 = 3, and (2 + 3) / (2 / 2 + 3) = 1.25.
    """
    adascale = one_parameter(2)
    gradients = torch.tensor([[3.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    assert feed(adascale, gradients) == 1.0
    assert feed(adascale, gradients) == pytest.approx(1.25)
    (parameter,) = adascale.optimizer.param_groups[0]["params"]
    assert parameter.tolist() == pytest.approx([1 - 0.1 * 2 - 0.125 * 2, 1.0])


def test_weight_decay_is_no_part_of_the_statistics() -> None:
    gradients = torch.tensor([[3.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    plain, decayed = one_parameter(2), one_parameter(2, weight_decay=10.0)
    for _ in range(3):
        assert feed(plain, gradients) == feed(decayed, gradients)
    states = [a.optimizer.param_groups[0]["params"][0].tolist() for a in (plain, decayed)]
    assert states[0] != states[1]


def test_clipping_what_the_optimizer_reads_leaves_the_gain() -> None:
    gains = []
    for clip in (1.0, 0.01):
        adascale = one_parameter(2)
        (parameter,) = adascale.optimizer.param_groups[0]["params"]
        for _ in range(3):
            batches = torch.tensor([[3.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
            adascale.begin_step()
            for gradient in batches:
                adascale.note_batch([gradient])
            parameter.grad = batches.mean(0) * clip
            gains.append(adascale.step([batches.mean(0)]))
    assert gains[:3] == gains[3:]


@pytest.mark.parametrize("size", [2, 4, 8])
def test_accumulation_on_one_replica_equals_replicas_without_it(size: int) -> None:
    """Sums run in the same order on both sides, so the results are bit-equal."""

    def one(replicas: ThreadReplicas) -> tuple[list[float], Tensor]:
        replica = Replica(scale=size, replicas=replicas)
        return replica.run(), replica.state

    alone = Replica(scale=size)
    gains = alone.run()
    assert max(gains) > 1.2
    for other_gains, state in on_replicas(size, one):
        assert other_gains == gains
        assert torch.equal(state, alone.state)


@pytest.mark.parametrize(("size", "share"), [(2, 4), (4, 2)])
def test_accumulation_on_several_replicas_equals_accumulation_on_one(size: int, share: int) -> None:
    def one(replicas: ThreadReplicas) -> tuple[list[float], Tensor]:
        replica = Replica(scale=size * share, replicas=replicas)
        return replica.run(), replica.state

    alone = Replica(scale=8)
    gains = alone.run()
    results = on_replicas(size, one)
    for other_gains, state in results:
        assert other_gains == results[0][0], "the gain differs between replicas"
        assert other_gains == pytest.approx(gains, rel=1e-12)
        assert state.tolist() == pytest.approx(alone.state.tolist(), rel=1e-10)


def test_replicas_of_unequal_shares_give_the_same_gain() -> None:
    """Three base batches, two on replica 0 and one on replica 1, equal three on one."""
    batches = torch.tensor([[3.0, 1.0], [1.0, 0.5], [2.0, -1.0]], dtype=torch.float64)

    def one(replicas: ThreadReplicas) -> float:
        adascale = one_parameter(3)
        adascale.collectives = replicas
        gain = 0.0
        for _ in range(2):
            for gradient in batches[:2] if replicas.rank == 0 else batches[2:]:
                adascale.note_batch([gradient])
            (parameter,) = adascale.optimizer.param_groups[0]["params"]
            parameter.grad = batches.mean(0)
            gain = adascale.step([batches.mean(0)])
        return gain

    alone = one_parameter(3)
    expected = [feed(alone, batches) for _ in range(2)][1]
    assert expected > 1.1
    assert on_replicas(2, one) == pytest.approx([expected, expected])


@pytest.mark.parametrize("new_scale", [2, 8])
def test_a_change_of_scale_keeps_the_statistics(new_scale: int) -> None:
    """The gain right after is the formula with the stored averages, one new sample, the new S."""
    replica = Replica(scale=4)
    replica.run(6)
    replica.adascale.set_batches_per_step(new_scale)
    before = copy.deepcopy(replica.adascale.gain)
    assert before.at(new_scale) == pytest.approx(
        (before.variance + before.square_mean) / (before.variance / new_scale + before.square_mean)
    )
    batches = [replica.gradients(rows) for rows in replica.data_TSRD[6, :new_scale]]
    gradients = torch.stack([torch.cat(batch) for batch in batches])
    variance = float(gradients.var(dim=0, correction=1).sum())
    square_mean = float(gradients.mean(dim=0).square().sum()) - variance / new_scale
    assert square_mean > 0, "the floor is not what is tested here"
    variance = before.variance + (variance - before.variance) / 7
    square_mean = before.square_mean + (square_mean - before.square_mean) / 7
    assert replica.step() == pytest.approx(
        (variance + square_mean) / (variance / new_scale + square_mean)
    )
    replica.run()
    assert replica.adascale.is_over


def test_goes_on_with_fewer_replicas_after_a_restart() -> None:
    """Four replicas stop; two continue with their statistics, as one with S = 2 would."""

    def start(replicas: ThreadReplicas) -> tuple[dict[str, Any], Any, Tensor]:
        replica = Replica(scale=4, replicas=replicas)
        replica.run(5)
        weights = torch.cat([replica.weight, replica.bias]).detach()
        return replica.adascale.state_dict(), replica.optimizer.state_dict(), weights

    state, optimizer_state, weights = on_replicas(4, start)[0]

    def resume(replicas: Collectives) -> tuple[list[float], Tensor]:
        replica = Replica(scale=4, replicas=replicas)
        replica.weight.data, replica.bias.data = weights[:WIDTH].clone(), weights[WIDTH:].clone()
        replica.optimizer.load_state_dict(copy.deepcopy(optimizer_state))
        replica.adascale.load_state_dict(state)
        replica.adascale.set_batches_per_step(2)
        return replica.run(), replica.state

    gains, final = resume(SingleReplica())
    assert len(gains) > 5 and gains[0] > 1
    for other_gains, other in on_replicas(2, resume):
        assert other_gains == gains
        assert torch.equal(other, final)


def test_resume_is_bit_equal_to_the_uninterrupted_run() -> None:
    whole, first, second = (Replica(scale=4) for _ in range(3))
    gains = whole.run()
    head = first.run(5)
    second.weight.data, second.bias.data = first.weight.data.clone(), first.bias.data.clone()
    second.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
    second.adascale.load_state_dict(json.loads(json.dumps(first.adascale.state_dict())))
    assert head + second.run() == gains
    assert torch.equal(second.state, whole.state)
    assert second.adascale.state_dict() == whole.adascale.state_dict()


def test_sparse_gradients_count_repeated_rows_once() -> None:
    """Row 2 twice with gradient (1, 1) is (2, 2) in the dense gradient: squared norm 8 + 2."""
    table = nn.Embedding(5, 2, sparse=True)
    table(torch.tensor([2, 2, 4])).sum().backward()
    assert table.weight.grad is not None and not table.weight.grad.is_coalesced()
    assert square_norm([table.weight.grad]).item() == pytest.approx(10.0)
    assert square_norm([table.weight.grad.to_dense()]).item() == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("value", "dtype"), [(1e-30, torch.float32), (300.0, torch.float16), (1e30, torch.bfloat16)]
)
def test_square_norms_neither_vanish_nor_overflow(value: float, dtype: torch.dtype) -> None:
    """The squares of these values do not exist in their own format."""
    gradients = [torch.full((4,), value, dtype=dtype), torch.full((2, 6), value, dtype=dtype)]
    assert square_norm(gradients).item() == pytest.approx(16 * value**2, rel=0.02)
    assert square_norm([]).item() == 0.0


def test_trains_a_sparse_table_as_the_dense_one() -> None:
    def run(*, sparse: bool) -> tuple[list[float], Tensor]:
        generator = torch.Generator().manual_seed(0)
        table = nn.Embedding(6, 3, sparse=sparse, dtype=torch.float64)
        table.weight.data = torch.randn(6, 3, generator=generator, dtype=torch.float64)
        optimizer = torch.optim.SGD(table.parameters(), lr=1.0)
        adascale = AdaScale(optimizer, lambda step: [0.1], total_steps=30, batches_per_step=2)
        gains = []
        while not adascale.is_over:
            noted = []
            for _ in range(2):
                rows = torch.randint(6, (4,), generator=generator)
                noted += torch.autograd.grad(table(rows).square().mean(), [table.weight])
                adascale.note_batch([noted[-1]])
            mean = (noted[0] + noted[1]) * 0.5
            table.weight.grad = mean
            gains.append(adascale.step([mean]))
        return gains, table.weight.detach()

    dense_gains, dense = run(sparse=False)
    sparse_gains, sparse = run(sparse=True)
    assert max(dense_gains) > 1.1
    assert sparse_gains == pytest.approx(dense_gains)
    assert torch.allclose(sparse, dense)
