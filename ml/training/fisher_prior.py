"""Train on new days only, held near older weights where those were sure.

Each finished training leaves an anchor: its weights and, beside them, the diagonal of the
empirical Fisher information, which says how much each weight mattered. The next training starts
between two anchors, the cold start's and the previous day's, and pays for every weight that
moves away from them, in proportion to that information.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ml.tensor_files import write_tensors
from ml.training.checkpoint import MODEL_FILE, flush
from ml.training.tables.sparse_tables import Tables

FISHER_FILE = "fisher.safetensors"
Loss = Callable[[nn.Module, Any], tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Anchor:
    """Hold weights to stay near, and how much each one matters.

    Attributes:
        weights: Every trained parameter by name.
        fisher: Diagonal Fisher information of the same names and shapes, per unit of weight.
    """

    weights: dict[str, Tensor]
    fisher: dict[str, Tensor]

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If names or shapes differ, or an information is negative or not finite.
        """
        if not _fits(self.weights, self.fisher):
            raise ValueError("weights and Fisher information name different parameters")
        if not all((torch.isfinite(f) & (f >= 0)).all() for f in self.fisher.values()):
            raise ValueError("Fisher information must be finite and not negative; compute it again")

    @classmethod
    def of(cls, model: nn.Module, batches: Iterable[Any], *, loss: Loss) -> "Anchor":
        """Return the anchor of a trained model, with its information over batches."""
        weights = {name: p.detach().clone() for name, p in _trained(model).items()}
        return cls(weights=weights, fisher=diagonal_fisher(model, batches, loss=loss))

    @classmethod
    def load(cls, folder: Path) -> "Anchor":
        """Read a checkpoint's weights and the information that `save_fisher` put beside them.

        Raises:
            FileNotFoundError: If either file is missing.
            ValueError: If they do not fit one another.
        """
        for name in (MODEL_FILE, FISHER_FILE):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"no {name} in {folder}; save the trained model's first")
        fisher, weights = load_file(folder / FISHER_FILE), load_file(folder / MODEL_FILE)
        return cls(weights={n: weights[n] for n in fisher if n in weights}, fisher=fisher)

    def to(self, device: torch.device | str) -> "Anchor":
        """Return the anchor on a device."""
        return Anchor(
            weights={name: w.to(device) for name, w in self.weights.items()},
            fisher={name: f.to(device) for name, f in self.fisher.items()},
        )


def save_fisher(folder: Path, fisher: dict[str, Tensor]) -> Path:
    """Write Fisher information beside a checkpoint's weights; it appears whole or not at all.

    Raises:
        OSError: If it cannot be written; what was there before stays.
    """
    path, part = folder / FISHER_FILE, folder / f".{FISHER_FILE}"
    try:
        write_tensors({name: f.cpu().contiguous() for name, f in fisher.items()}, part)
        flush([part])
        part.replace(path)
        flush([folder])
    finally:
        part.unlink(missing_ok=True)
    return path


def diagonal_fisher(model: nn.Module, batches: Iterable[Any], *, loss: Loss) -> dict[str, Tensor]:
    """Return the diagonal empirical Fisher information of each trained parameter.

    It is the sum over batches of the squared gradient of the summed loss, over the summed weight.
    With one example per batch that is the mean squared gradient, exactly. Larger batches are
    cheaper and add the products of different examples' gradients, which cancel on average where
    the mean gradient is 0, as at the end of a training.

    Args:
        model: A trained model; dropout is off here, and its mode and gradients stay as they were.
        batches: Examples to look at.
        loss: Takes model and batch, returns summed loss and the weight it is summed over.

    Raises:
        ValueError: If the batches weigh nothing or no parameter is trained.
    """
    parameters = _trained(model)
    if not parameters:
        raise ValueError("the model has no parameter that is trained")
    totals = {name: torch.zeros_like(p) for name, p in parameters.items()}
    device = next(iter(parameters.values())).device
    weight_sum, was_training = 0.0, model.training
    model.eval()
    try:
        for batch in batches:
            with torch.enable_grad():
                total, weight = loss(model, batch.to(device) if hasattr(batch, "to") else batch)
            gradients = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    totals[name] += gradient.square()
            weight_sum += float(weight)
    finally:
        model.train(was_training)
    if weight_sum <= 0:
        raise ValueError("Fisher information needs batches with weight; there were none")
    return {name: total / weight_sum for name, total in totals.items()}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FisherPrior:
    """Hold what an incremental training is drawn to.

    Attributes:
        cold: Anchor of the cold start, w0.
        previous: Anchor of the latest training, w_(t-1).
        cold_share: Share alpha of the cold start, within 0 and 1.
        strength: Factor lambda of the penalty; the paper publishes neither value.

    Source: lirank 5.6.
    """

    cold: Anchor
    previous: Anchor
    cold_share: float
    strength: float

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If the anchors are of different models or a number is out of range.
        """
        if not 0 <= self.cold_share <= 1 or self.strength < 0:
            raise ValueError("cold_share must lie within [0, 1] and strength not below 0")
        if not _fits(self.cold.weights, self.previous.weights):
            raise ValueError("the two anchors are of different models; start cold again")

    def start(self, model: nn.Module) -> None:
        """Set the model's trained parameters to alpha w0 + (1 - alpha) w_(t-1).

        Frozen parameters and buffers are left alone: load the previous checkpoint before.

        Raises:
            ValueError: If the anchors do not fit the model.
        """
        share = self.cold_share
        with torch.no_grad():
            for name, parameter in self._of(model).items():
                new, old = self.previous.weights[name], self.cold.weights[name]
                parameter.copy_(share * old + (1 - share) * new)

    def penalty(self, model: nn.Module) -> Tensor:
        """Return strength / 2 times the information-weighted squared distance to both anchors.

        Anchors and model must be on one device, see `to`.

        Raises:
            ValueError: If the anchors do not fit the model.
        """
        parameters = self._of(model)
        shares = ((self.cold, self.cold_share), (self.previous, 1 - self.cold_share))
        terms = [
            share * (anchor.fisher[name] * (p - anchor.weights[name]) ** 2).sum()
            for anchor, share in shares
            for name, p in parameters.items()
        ]
        return self.strength / 2 * torch.stack(terms).sum()

    def added_to(self, loss: Loss) -> Loss:
        """Return the loss with the penalty on its mean, for `TrainJob.loss`.

        A loop divides the summed loss by its weight, so the penalty is summed as often. The
        anchors move to the model's device once.
        """
        placed: dict[torch.device, FisherPrior] = {}

        def with_penalty(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
            total, weight = loss(model, batch)
            if total.device not in placed:
                placed[total.device] = self.to(total.device)
            return total + weight * placed[total.device].penalty(model), weight

        return with_penalty

    def to(self, device: torch.device | str) -> "FisherPrior":
        """Return the prior with both anchors on a device."""
        return replace(self, cold=self.cold.to(device), previous=self.previous.to(device))

    def _of(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """Return the model's trained parameters by name.

        Raises:
            ValueError: If the anchors do not fit them.
        """
        parameters = _trained(model)
        if not _fits(parameters, self.cold.weights):
            raise ValueError("the anchors are of another model; start cold again")
        return parameters


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained, by name.

    Raises:
        ValueError: If one is a table that has sparse gradients or is cut by rows: the penalty's
            gradient is dense, and each rank has other rows.
    """
    tables = Tables.of(model)
    cut = [name for name, table in tables.sharded.items() if table.weight.requires_grad]
    if found := [*tables.replicated, *cut]:
        raise ValueError(
            f"a Fisher prior pulls at every row in every step, and table {found[0]!r} has sparse "
            "gradients or is cut by rows; set the model's item_table='replicated' "
            "(nn.Embedding with sparse=False), or train without the prior"
        )
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _fits(left: dict[str, Any], right: dict[str, Tensor]) -> bool:
    """Return whether both name the same tensors in the same shapes."""
    return {n: t.shape for n, t in left.items()} == {n: t.shape for n, t in right.items()}
