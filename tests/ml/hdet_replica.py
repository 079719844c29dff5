"""A replica of a small regression, driven by HDET's scheduler as a plain loop drives it."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from ml.training.collectives import SingleReplica
from ml.training.hdet.config import HdetConfig
from ml.training.hdet.hyper_parameters import HyperParameter
from ml.training.hdet.scheduler import HDETScheduler, SyncReport
from tests.ml.replica_threads import ThreadReplicas

STEPS = 24


class Replica:
    """One replica of a small regression with shared gradients."""

    def __init__(
        self,
        replicas: ThreadReplicas | SingleReplica,
        config: HdetConfig,
        *,
        optimizer: str = "adam",
        probe: Callable[[int], Tensor] | None = None,
        hyper_parameters: Mapping[str, HyperParameter] | None = None,
        rates: Sequence[float] = (0.05, 0.02),
    ) -> None:
        """Start from the same weights and data on every replica."""
        self.replicas, self.config = replicas, config
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(6, generator=generator, dtype=torch.float64))
        self.bias = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.data = torch.randn(STEPS * 2, 8, 7, generator=generator, dtype=torch.float64)
        groups = [{"params": [self.weight]}, {"params": [self.bias]}]
        kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimizer]
        self.optimizer = kind(groups, lr=1.0)
        self.scheduler = HDETScheduler(
            self.optimizer,
            rates,
            total_steps=STEPS,
            cycle_momentum=False,
            config=config,
            collectives=replicas,
            probe=probe or self.probe,
            hyper_parameters=hyper_parameters,
        )

    def losses(self, rows: Tensor) -> Tensor:
        return (rows[:, :6] @ self.weight + self.bias - rows[:, 6]) ** 2

    def probe(self, sync: int) -> Tensor:
        return self.losses(self.data[STEPS + sync]).detach()

    def step(self, number: int) -> SyncReport | None:
        rows = self.data[number]
        share = len(rows) // self.replicas.size
        own = rows[self.replicas.rank * share : (self.replicas.rank + 1) * share]
        loss = self.losses(own).mean()
        self.optimizer.zero_grad()
        loss.backward()
        for parameter in (self.weight, self.bias):
            assert parameter.grad is not None
            if self.config.gradient_sync == "shared":
                mean = self.replicas.sum(parameter.grad) / self.replicas.size
                parameter.grad.copy_(mean)
        self.optimizer.step()
        return self.scheduler.step(loss.detach())

    def run(self, start: int = 0, stop: int = STEPS) -> list[SyncReport]:
        return [report for n in range(start, stop) if (report := self.step(n)) is not None]

    @property
    def parameters(self) -> Tensor:
        return torch.cat([self.weight, self.bias]).detach().clone()


def torch_rates(max_lr: float) -> list[float]:
    """Return the rates of torch's OneCycleLR, step by step."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = OneCycleLR(optimizer, max_lr, total_steps=STEPS, cycle_momentum=False)
    rates = []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(rates) < STEPS:
            reference.step()
    return rates
