"""Which numbers of a recipe a search may change, from where to where, and how they are drawn.

A field is named by its path, such as `training.learning_rate`. Pure functions of frozen
dataclasses: nothing here knows what tries the recipes.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

Recipe = TypeVar("Recipe")
LEARNING_RATE = "training.learning_rate"
WEIGHT_DECAY = "training.weight_decay"
DROPOUT = "model.dropout_fraction"
_REACH = 8.0
_HIGHEST_DROPOUT = 0.6
_FIRST_DECAY = 0.01  # the middle of the range of a recipe that decays nothing


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldRange:
    """Bound one field.

    Attributes:
        field: Its path in the recipe.
        low: Lowest value.
        high: Highest value.
        log: Whether its logarithm is drawn uniformly, not itself.
    """

    field: str
    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If the range is empty, not finite, or has no logarithm.
        """
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"{self.field}: {self.low} to {self.high} is no range; set low < high")
        if self.log and self.low <= 0:
            raise ValueError(f"{self.field}: a logarithmic range must begin above 0")

    def draw(self, generator: np.random.Generator) -> float:
        """Return one value."""
        if not self.log:
            return float(generator.uniform(self.low, self.high))
        drawn = math.exp(generator.uniform(math.log(self.low), math.log(self.high)))
        return self.clip(drawn)

    def clip(self, value: float) -> float:
        """Return the value of the range that is nearest to a value."""
        return min(max(value, self.low), self.high)


def default_space(recipe: Any) -> tuple[FieldRange, ...]:
    """Return the ranges of the fields that matter most, around what the recipe has.

    Learning rate and weight decay reach from an eighth to eight times the recipe's; dropout, where
    the model has it, from none to 0.6.

    Args:
        recipe: A whole recipe with a `training` part.
    """
    rate = value_of(recipe, LEARNING_RATE)
    decay = value_of(recipe, WEIGHT_DECAY) or _FIRST_DECAY
    space = (
        FieldRange(field=LEARNING_RATE, low=rate / _REACH, high=rate * _REACH, log=True),
        FieldRange(field=WEIGHT_DECAY, low=decay / _REACH, high=decay * _REACH, log=True),
    )
    if DROPOUT.partition(".")[2] in {each.name for each in dataclasses.fields(recipe.model)}:
        return (*space, FieldRange(field=DROPOUT, low=0.0, high=_HIGHEST_DROPOUT))
    return space


def value_of(recipe: Any, field: str) -> float:
    """Return the number at a path.

    Raises:
        ValueError: If there is no such field, or it holds no number.
    """
    *parts, name = field.split(".")
    owner = recipe
    for part in parts:
        owner = _part(owner, part, field=field)
    _check_number(owner, name, field=field)
    return getattr(owner, name)


def replaced(recipe: Recipe, values: Mapping[str, float]) -> Recipe:
    """Return the recipe with other numbers at some paths.

    Args:
        recipe: A frozen dataclass of frozen dataclasses.
        values: Path to number; a field that counts takes whole numbers only.

    Raises:
        ValueError: If a field is unknown, holds no number, or the recipe refuses the value.
    """
    for field, value in values.items():
        recipe = _with(recipe, field.split("."), value, field=field)
    return recipe


def drawn(
    space: tuple[FieldRange, ...], recipe: Any, *, trials: int, seed: int
) -> list[dict[str, float]]:
    """Return the values of each trial, by field; the first trial is the recipe as it is.

    A trial's values depend on the seed, its number and the field's place alone: more trials begin
    with the same ones.

    Args:
        space: What is drawn.
        recipe: Where the first trial's values are taken from.
        trials: How many.
        seed: Chooses the values.

    Raises:
        ValueError: If there is no trial, no field, or a field twice.
    """
    names = [each.field for each in space]
    if trials < 1 or not names or len(set(names)) < len(names):
        raise ValueError(f"a search takes a trial and fields, each once; got {trials}, {names}")
    found = [{name: value_of(recipe, name) for name in names}]
    for number in range(1, trials):
        generators = (np.random.default_rng((seed, number, place)) for place in range(len(space)))
        found.append(
            {each.field: each.draw(own) for each, own in zip(space, generators, strict=True)}
        )
    return found


def clipped(space: tuple[FieldRange, ...], values: Mapping[str, float]) -> dict[str, float]:
    """Return values of the space's fields, moved into their ranges."""
    return {each.field: each.clip(values[each.field]) for each in space}


def _with(owner: Any, path: list[str], value: float, *, field: str) -> Any:
    name, *rest = path
    if rest:
        part = _part(owner, name, field=field)
        return dataclasses.replace(owner, **{name: _with(part, rest, value, field=field)})
    kinds = _check_number(owner, name, field=field)
    if not math.isfinite(value):
        raise ValueError(f"{field} takes a finite number, not {value}")
    if float not in kinds:
        if not float(value).is_integer():
            raise ValueError(f"{field} takes a whole number, not {value}")
        value = int(value)
    try:
        return dataclasses.replace(owner, **{name: value})
    except ValueError as error:
        raise ValueError(f"{field} = {value} is refused: {error}") from error


def _part(owner: Any, name: str, *, field: str) -> Any:
    part = getattr(owner, name, None)
    if dataclasses.is_dataclass(part):
        return part
    raise ValueError(f"no field {field!r}: {type(owner).__name__} has no part {name!r}")


def _check_number(owner: Any, name: str, *, field: str) -> set[type]:
    """Return which kinds of numbers a field takes."""
    hints = typing.get_type_hints(type(owner))
    kinds = {key: _number_kinds(hint) for key, hint in hints.items()}
    if kinds.get(name):
        return kinds[name]
    numbers = sorted(key for key, found in kinds.items() if found)
    has = f"has no number {name!r}" if name in hints else f"has no field {name!r}"
    raise ValueError(f"no field {field!r}: {type(owner).__name__} {has}; choose one of {numbers}")


def _number_kinds(hint: Any) -> set[type]:
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    options = set(typing.get_args(hint)) if is_union else {hint}
    return options & {int, float}
