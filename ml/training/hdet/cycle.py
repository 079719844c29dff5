"""The arguments of torch's OneCycleLR, read as that class reads them, one cycle per group."""

from collections.abc import Sequence
from dataclasses import replace

from torch.optim import Optimizer

from ml.training.one_cycle import OneCycle

PerGroup = float | Sequence[float]


def steps_of_cycle(total_steps: int | None, epochs: int | None, steps_per_epoch: int | None) -> int:
    """Return the steps of the whole cycle.

    Raises:
        ValueError: If it is unknown, or not a positive whole number.
    """
    if total_steps is None:
        if epochs is None or steps_per_epoch is None:
            raise ValueError("give total_steps, or epochs and steps_per_epoch")
        numbers = {"epochs": epochs, "steps_per_epoch": steps_per_epoch}
        total_steps = epochs * steps_per_epoch
    else:
        numbers = {"total_steps": total_steps}
    for name, number in numbers.items():
        if not isinstance(number, int) or number <= 0:
            raise ValueError(f"{name} must be a positive whole number, got {number}")
    return total_steps


def check_momentum(optimizer: Optimizer) -> None:
    """Check that the optimiser has a momentum to cycle.

    Raises:
        ValueError: If it has neither a momentum nor betas.
    """
    if not {"momentum", "betas"} & set(optimizer.defaults):
        raise ValueError(
            "cycle_momentum needs an optimizer with momentum or betas; pass cycle_momentum=False"
        )


def cycles_of(
    optimizer: Optimizer,
    shape: OneCycle,
    *,
    max_lr: PerGroup,
    momenta: tuple[PerGroup, PerGroup],
    resumes: bool,
) -> list[OneCycle]:
    """Return every group's cycle; where it begins, its bounds are kept in the group, as by torch.

    Args:
        optimizer: Its groups take, or give, their bounds.
        shape: What the groups have in common.
        max_lr: Peak learning rate, of all groups or of each.
        momenta: Momentum at the peak and at both ends, likewise.
        resumes: Whether the bounds are read from the groups, as torch does with a `last_epoch`.

    Raises:
        ValueError: If a list is not as long as there are groups.
        KeyError: If a group that resumes has no bounds.
    """
    bounds = {"max_lr": max_lr, "base_momentum": momenta[0], "max_momentum": momenta[1]}
    groups = optimizer.param_groups
    values = {name: _per_group(name, value, len(groups)) for name, value in bounds.items()}
    cycles = []
    for index, group in enumerate(groups):
        if resumes:
            cycles.append(_read(shape, group, index))
            continue
        cycle = replace(shape, **{name: value[index] for name, value in values.items()})
        first = cycle.max_lr / cycle.div_factor
        group |= {name: value[index] for name, value in values.items()}
        group |= {"initial_lr": first, "min_lr": first / cycle.final_div_factor}
        cycles.append(cycle)
    return cycles


def _read(shape: OneCycle, group: dict[str, float], index: int) -> OneCycle:
    """Return the cycle whose bounds a group keeps."""
    names = ("max_lr", "initial_lr", "min_lr", "base_momentum", "max_momentum")
    if missing := [name for name in names if name not in group]:
        raise KeyError(
            f"param_groups[{index}] has no {missing[0]!r} to resume from: load the optimizer's "
            "state before, or leave last_epoch at -1"
        )
    return replace(
        shape,
        max_lr=group["max_lr"],
        div_factor=group["max_lr"] / group["initial_lr"],
        final_div_factor=group["initial_lr"] / group["min_lr"],
        base_momentum=group["base_momentum"],
        max_momentum=group["max_momentum"],
    )


def _per_group(name: str, value: PerGroup, num_groups: int) -> list[float]:
    """Return a value for each group."""
    values = [float(value)] * num_groups if isinstance(value, int | float) else list(value)
    if len(values) != num_groups:
        raise ValueError(f"{name} has {len(values)} values, the optimizer {num_groups} groups")
    return values
