"""What AdaScale refuses: each refusal names the remedy, and none leaves a half-taken step."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from ml.training.adascale import AdaScale, check_adascale
from ml.training.hdet.scheduler import HDETScheduler
from tests.ml.adascale_steps import feed, one_parameter
from tests.ml.replica_threads import ThreadReplicas, on_replicas


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad])
def test_refuses_optimizers_that_rescale_the_gradient(kind: type[torch.optim.Optimizer]) -> None:
    optimizer = kind([nn.Parameter(torch.ones(2))], lr=0.1)  # pyright: ignore[reportCallIssue]
    message = f"not of {kind.__name__}.*train with SGD"
    with pytest.raises(ValueError, match=message):
        check_adascale(optimizer, hdet=False, sharded=False)
    with pytest.raises(ValueError, match=message):
        AdaScale(optimizer, lambda step: [0.1], total_steps=3, batches_per_step=1)


def test_refuses_hdet_and_shards_that_the_caller_declares() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1)
    check_adascale(optimizer, hdet=False, sharded=False)
    with pytest.raises(ValueError, match="switch HDET off"):
        check_adascale(optimizer, hdet=True, sharded=False)
    with pytest.raises(ValueError, match="replicate the parameters"):
        check_adascale(optimizer, hdet=False, sharded=True)


def test_refuses_an_optimizer_that_hdet_drives_as_well() -> None:
    adascale = one_parameter(2)
    scheduler = HDETScheduler(adascale.optimizer, 0.5, total_steps=10, cycle_momentum=False)
    gradients = torch.tensor([[3.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    feed(adascale, gradients)
    scheduler.step(1.0)
    with pytest.raises(ValueError, match="remove the other scheduler"):
        feed(adascale, gradients)


@pytest.fixture
def one_process_group(tmp_path: Path) -> Iterator[None]:
    place = (tmp_path / "rendezvous").as_uri()
    dist.init_process_group("gloo", init_method=place, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_process_group")
def test_refuses_sharded_parameters() -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = nn.Linear(3, 2)
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="replicate the parameters"):
        AdaScale(optimizer, lambda step: [0.1], total_steps=3, batches_per_step=1)


@pytest.mark.parametrize(("scale", "noted"), [(1, 0), (1, 2), (2, 1), (4, 2)])
def test_refuses_a_step_of_another_number_of_batches(scale: int, noted: int) -> None:
    adascale = one_parameter(scale)
    gradient = torch.ones(2, dtype=torch.float64)
    for _ in range(noted):
        adascale.note_batch([gradient])
    message = rf"{noted} base batches.*batches_per_step is {scale}.*set_batches_per_step\({noted}\)"
    with pytest.raises(ValueError, match=message):
        adascale.step([gradient])
    assert (adascale.tau, adascale.gain.variance) == (0.0, 0.0)


def test_refuses_replicas_that_were_not_counted() -> None:
    """Two replicas with batches_per_step = 1 would silently train at another scale."""

    def one(replicas: ThreadReplicas) -> float:
        adascale = one_parameter(1)
        adascale.collectives = replicas
        return feed(adascale, torch.ones(1, 2, dtype=torch.float64))

    with pytest.raises(ValueError, match=r"2 base batches .*2 replicas.*batches_per_step is 1"):
        on_replicas(2, one)


def test_a_skipped_step_leaves_nothing_behind() -> None:
    """An infinite gradient is refused before anything moves; the rest goes on as without it."""
    good = torch.tensor([[3.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    bad = torch.tensor([[math.inf, 0.0], [1.0, 0.0]], dtype=torch.float64)
    skipping, plain = one_parameter(2, momentum=0.9), one_parameter(2, momentum=0.9)
    gains = [feed(plain, good) for _ in range(3)]
    assert feed(skipping, good) == gains[0]
    with pytest.raises(FloatingPointError, match="skip this step"):
        feed(skipping, bad)
    assert [feed(skipping, good) for _ in range(2)] == gains[1:]
    assert skipping.state_dict() == plain.state_dict()


def test_ends_with_the_schedule_and_refuses_a_schedule_of_other_groups() -> None:
    adascale = one_parameter(1, total=2)
    for _ in range(2):
        feed(adascale, torch.ones(1, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match="schedule of 2 steps is over"):
        feed(adascale, torch.ones(1, 2, dtype=torch.float64))
    other = one_parameter(1)
    other.schedule = lambda step: [0.1, 0.02]
    with pytest.raises(ValueError, match="2 learning rates for 1 parameter groups"):
        feed(other, torch.ones(1, 2, dtype=torch.float64))


def test_refuses_a_foreign_state_and_numbers_below_one() -> None:
    with pytest.raises(ValueError, match="start in an empty folder"):
        one_parameter(2).load_state_dict({"step": 3, "multipliers": [1.0]})
    with pytest.raises(ValueError, match="batches_per_step is 0"):
        one_parameter(0)
    with pytest.raises(ValueError, match="total_steps is 0"):
        one_parameter(1, total=0)
