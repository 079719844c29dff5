"""Scalars beside the learning rate that replicas may vary: one value behind many places.

A hyper-parameter is read and set through functions, so that whatever holds the number (a module,
a parameter group, a loss) needs to know nothing of HDET. Where a model has several places of one
kind, such as dropouts of different strength, they keep their ratios: the value is the largest.

What the replicas' losses say of it: weight decay and the attention's temperature are part of the
model that is evaluated, so training losses and probe losses compare them. Dropout and label
smoothing act only while training. The training loss of a window then contains what they add and
does not compare replicas; a probe, evaluated in evaluation mode and without smoothing, does. They
reach the weights through the gradients only: where gradients are shared by all replicas, no loss
can tell whose value was better, so steering them needs local gradients.

Source: hdet 2.1 (any scalar can replace or join the learning rate).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn
from torch.optim import Optimizer

from ml.layers.scalars import AttentionTemperature, LabelSmoothing

Get = Callable[[], float]
Set = Callable[[float], None]
_DROPOUTS = (
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class HyperParameter:
    """Make one scalar of a training reachable.

    Attributes:
        name: Its name, as `HdetConfig.diverse` gives it.
        get: Returns its value.
        set: Makes a value hold from the next step on.
        lowest: Lower limit of the value.
        highest: Upper limit.
        spread_fraction: Half width of the replicas' values around the mean, relative to it.
        only_while_training: Whether it acts while training only, see the module.
    """

    name: str
    get: Get
    set: Set
    lowest: float
    highest: float
    spread_fraction: float
    only_while_training: bool = False

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If a value is out of range.
        """
        if not 0 <= self.lowest < self.highest:
            raise ValueError(f"the limits of {self.name} must be 0 <= lowest < highest")
        if not 0 <= self.spread_fraction < 1:
            raise ValueError(f"spread_fraction of {self.name} must be in [0, 1)")

    def start(self) -> float:
        """Return the value now.

        Raises:
            ValueError: If nothing can be multiplied with it, or it is not within the limits.
        """
        value = float(self.get())
        if not (math.isfinite(value) and value > 0):
            raise ValueError(
                f"{self.name} starts at {value}, and HDET multiplies it; start above 0, "
                "for instance by HdetConfig.starts"
            )
        if not self.lowest <= value <= self.highest:
            raise ValueError(
                f"{self.name} starts at {value}, outside its limits {self.lowest} to "
                f"{self.highest}; change one of them"
            )
        return value


def weight_decay_of(optimizer: Optimizer, *, start: float | None = None) -> HyperParameter:
    """Return the weight decay of the groups that have one.

    Args:
        optimizer: Its parameter groups are changed.
        start: First value; the groups' own by default.

    Raises:
        ValueError: If no group is decayed.
    """
    groups = [group for group in optimizer.param_groups if group.get("weight_decay", 0.0) > 0]
    if not groups:
        raise ValueError("no parameter group has a weight decay to vary; set one above 0")
    get, write = _linked([_item(group, "weight_decay") for group in groups], start=start)
    return HyperParameter(
        name="weight_decay", get=get, set=write, lowest=1e-8, highest=10.0, spread_fraction=0.5
    )


def dropout_of(model: nn.Module, *, start: float | None = None) -> HyperParameter:
    """Return the dropout probability of all places of a model.

    Places are torch's dropout modules and float attributes of modules whose name is `dropout` or
    `attention_dropout` or ends in `dropout_fraction`. Where all are 0, `start` sets all of them;
    otherwise those of 0 stay off.

    Raises:
        ValueError: If the model has no such place.
    """
    places = list(_dropout_places(model))
    if not places:
        raise ValueError("the model has no dropout to vary; build it with one, or vary another")
    get, write = _linked(places, start=start)
    return HyperParameter(
        name="dropout",
        get=get,
        set=write,
        lowest=0.0,
        highest=0.9,
        spread_fraction=1 / 3,
        only_while_training=True,
    )


def temperature_of(model: nn.Module, *, start: float | None = None) -> HyperParameter:
    """Return the temperature of all attention of a model; 1 is the usual scale.

    Raises:
        ValueError: If no attention of the model has a temperature.
    """
    holders = [module for module in model.modules() if isinstance(module, AttentionTemperature)]
    if not holders:
        raise ValueError("no attention of the model has a temperature; vary something else")
    get, write = _linked([_attribute(holder, "value") for holder in holders], start=start)
    return HyperParameter(
        name="temperature", get=get, set=write, lowest=0.1, highest=10.0, spread_fraction=0.2
    )


def label_smoothing_of(model: nn.Module, *, start: float | None = None) -> HyperParameter:
    """Return the label smoothing of a model's training loss.

    Raises:
        ValueError: If the model's loss knows none.
    """
    holders = [module for module in model.modules() if isinstance(module, LabelSmoothing)]
    if not holders:
        raise ValueError("the model's loss has no label smoothing; vary something else")
    get, write = _linked([_attribute(holder, "value") for holder in holders], start=start)
    return HyperParameter(
        name="label_smoothing",
        get=get,
        set=write,
        lowest=0.0,
        highest=0.5,
        spread_fraction=0.5,
        only_while_training=True,
    )


def hyper_parameters_of(
    names: Sequence[str],
    *,
    model: nn.Module,
    optimizer: Optimizer,
    starts: Sequence[tuple[str, float]] = (),
) -> dict[str, HyperParameter]:
    """Return the hyper-parameters of these names; the learning rate is not one of them.

    Args:
        names: What shall differ between replicas, as in `HdetConfig.diverse`.
        model: The model that is trained.
        optimizer: Its optimiser.
        starts: First values by name, as in `HdetConfig.starts`.

    Raises:
        ValueError: If a name is unknown, or the model has nothing of the kind.
    """
    first = dict(starts)
    makers: Mapping[str, Callable[[float | None], HyperParameter]] = {
        "dropout": lambda start: dropout_of(model, start=start),
        "label_smoothing": lambda start: label_smoothing_of(model, start=start),
        "temperature": lambda start: temperature_of(model, start=start),
        "weight_decay": lambda start: weight_decay_of(optimizer, start=start),
    }
    wanted = [name for name in names if name != "learning_rate"]
    if unknown := [name for name in wanted if name not in makers]:
        known = sorted({"learning_rate", *makers})
        raise ValueError(f"no hyper-parameter {unknown[0]!r} to vary; known are {known}")
    return {name: makers[name](first.get(name)) for name in wanted}


def _linked(places: Sequence[tuple[Get, Set]], *, start: float | None) -> tuple[Get, Set]:
    """Return one value behind many places that keep their ratios; it is the largest of them."""
    values = [get() for get, _ in places]
    top = max(values)
    shares = [value / top if top else 1.0 for value in values]
    largest = places[values.index(top)][0]

    def write(value: float) -> None:
        for (_, put), share in zip(places, shares, strict=True):
            put(value * share)

    if start is not None:
        write(start)
    return largest, write


def _attribute(owner: nn.Module, name: str) -> tuple[Get, Set]:
    """Return how to read and set a module's attribute."""
    return lambda: float(getattr(owner, name)), lambda value: setattr(owner, name, value)


def _item(owner: dict[str, object], name: str) -> tuple[Get, Set]:
    """Return how to read and set an entry of a parameter group."""
    return lambda: float(owner[name]), lambda value: owner.update({name: value})  # pyright: ignore[reportArgumentType]


def _dropout_places(model: nn.Module) -> Iterator[tuple[Get, Set]]:
    """Yield how to read and set every dropout probability of a model."""
    for module in model.modules():
        if isinstance(module, _DROPOUTS):
            yield _attribute(module, "p")
        for name, value in vars(module).items():
            known = name in ("dropout", "attention_dropout") or name.endswith("dropout_fraction")
            if known and isinstance(value, float):
                yield _attribute(module, name)
