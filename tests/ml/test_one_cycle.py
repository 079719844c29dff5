"""The one-cycle envelope against torch's own."""

import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR

from ml.training.one_cycle import OneCycle


@pytest.mark.parametrize("strategy", ["cos", "linear"])
@pytest.mark.parametrize("three_phase", [False, True])
@pytest.mark.parametrize("pct_start", [0.1, 0.3])
def test_equals_torch_at_every_step(strategy: str, three_phase: bool, pct_start: float) -> None:
    settings = {"pct_start": pct_start, "anneal_strategy": strategy, "three_phase": three_phase}
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    reference = OneCycleLR(optimizer, 0.02, total_steps=60, **settings)
    cycle = OneCycle(max_lr=0.02, total_steps=60, **settings)
    for step in range(60):
        group = optimizer.param_groups[0]
        assert cycle.at(step) == pytest.approx((group["lr"], group["momentum"]), rel=1e-9)
        optimizer.step()
        if step < 59:
            reference.step()


def test_stays_positive_when_the_cycle_is_one_step() -> None:
    assert OneCycle(total_steps=1).at(1)[0] > 0


@pytest.mark.parametrize("step", [-1, 11])
def test_refuses_a_step_outside_the_cycle(step: int) -> None:
    with pytest.raises(ValueError, match="cycle of 10 steps"):
        OneCycle(total_steps=10).at(step)
