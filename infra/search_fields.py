"""Which fields a search changes, as they are asked for, and which recipes it cannot search."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from infra.errors import UserError

if TYPE_CHECKING:
    from ml.training.search_space import FieldRange

# A range whose ends differ by this much is drawn by its logarithm, if it has one.
_DECADE = 10.0
# A place within a range that is no whole number where the ends are.
_WITHIN = 0.381966


def chosen_space(asked: Sequence[str], recipe: Any) -> "tuple[FieldRange, ...]":
    """Return the fields and ranges that are asked for.

    Args:
        asked: Paths of fields, each alone, which takes its default range, or as `path=low:high`,
            which is drawn by its logarithm where both ends are positive and differ by ten times
            or more; none for the default of the recipe.
        recipe: The whole recipe.

    Raises:
        UserError: If a field is unknown or asked for twice, or the recipe refuses its range.
    """
    from ml.training.search_space import default_space

    default = {each.field: each for each in default_space(recipe)}
    space = [_asked(text.strip(), recipe, default) for text in asked]
    names = [each.field for each in space]
    if (twice := next((name for name in names if names.count(name) > 1), None)) is not None:
        raise UserError(f"FIELDS names {twice} twice", remedy="name each field once")
    return tuple(space) or tuple(default.values())


def _asked(text: str, recipe: Any, default: "dict[str, FieldRange]") -> "FieldRange":
    from ml.training.search_space import value_of

    name, has_range, ends = (part.strip() for part in text.partition("="))
    known = f"known with a range of their own: {', '.join(default)}"
    try:
        value_of(recipe, name)
    except ValueError as error:
        raise UserError(f"FIELDS: {error}", remedy=known) from error
    if has_range:
        return _ranged(name, ends, recipe)
    if name not in default:
        raise UserError(
            f"FIELDS: {name} has no range of its own", remedy=f"write {name}=low:high; {known}"
        )
    return default[name]


def _ranged(name: str, ends: str, recipe: Any) -> "FieldRange":
    from ml.training.search_space import FieldRange, replaced

    try:
        low, high = (float(end) for end in ends.split(":"))
    except ValueError:
        raise UserError(
            f"FIELDS: {name}={ends} is no range", remedy=f"write it as {name}=1e-4:1e-2"
        ) from None
    try:
        space = FieldRange(field=name, low=low, high=high, log=low > 0 and high >= _DECADE * low)
        for value in (low, low + _WITHIN * (high - low), high):
            replaced(recipe, {name: value})
    except ValueError as error:
        raise UserError(f"FIELDS: {error}", remedy="give a range that the recipe takes") from error
    return space


def check_searchable(recipe: Any, *, model: str, method: str) -> None:
    """Refuse a recipe that a trial, which is one worker, cannot train, or the method cannot search.

    Args:
        recipe: The whole recipe.
        model: Name of the model.
        method: How it is searched.

    Raises:
        UserError: If it splits its weights over workers, or a population would never meet.
    """
    training = recipe.training
    if training.sharding != "none":
        raise UserError(
            f"a recipe of the {model} with training.sharding = {training.sharding!r} cannot be "
            "searched: a trial is one worker, and has nobody to split its weights with",
            remedy="search a RECIPE that is not sharded, and train the sharded one with its values",
        )
    if method == "population" and training.epochs < 2:
        raise UserError(
            "a population goes on from each other's checkpoints after an epoch, and this recipe "
            f"of the {model} trains for one",
            remedy="choose a RECIPE of more epochs, or search without PBT=1",
        )


def differences(recipe: Any, *, step_batches: int) -> tuple[str, ...]:
    """Say how a trial, which is one worker, differs from a training on several.

    A step has the same batches; what belongs to each replica by itself is what differs.

    Args:
        recipe: The whole recipe.
        step_batches: Batches of a step, which are the workers of the training.
    """
    if step_batches == 1:
        return ()
    hdet, workers, notes = recipe.training.hdet, f"the training's {step_batches} workers", []
    if hdet.is_on:
        notes.append(f"HDET explores on {workers}; a trial is one replica, which explores nothing")
    if hdet.gradient_sync == "local":
        notes.append(
            f"{workers} follow their own gradients between meetings; a trial steps on all batches"
        )
    # The retriever's alone: whether its workers share what they score against.
    shares = getattr(recipe.batches, "global_candidates", None)
    if shares is False and not recipe.loss.gather:
        notes.append(
            f"{workers} score members against their own share of a batch's candidates; a trial "
            "against all of them"
        )
    return tuple(notes)
