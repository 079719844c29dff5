"""Turn frozen configuration dataclasses into JSON and back, nested ones and tuples included."""

import dataclasses
import json
import types
import typing
from typing import Any, TypeVar

Config = TypeVar("Config")


def to_json(config: Any) -> str:
    """Return a dataclass instance as indented JSON with sorted keys."""
    return json.dumps(dataclasses.asdict(config), indent=1, sort_keys=True)


def from_json(cls: type[Config], text: str) -> Config:
    """Read a dataclass written by `to_json`.

    Raises:
        ValueError: If a field is unknown, missing, or its value breaks an invariant.
    """
    return from_dict(cls, json.loads(text))


def from_dict(cls: type[Config], fields: dict[str, Any]) -> Config:
    """Build a dataclass from plain values.

    Raises:
        ValueError: If a field is unknown, missing, or its value breaks an invariant.
    """
    hints = typing.get_type_hints(cls)
    if unknown := sorted(set(fields) - set(hints)):
        raise ValueError(f"{cls.__name__} has no field {unknown[0]!r}; it has {sorted(hints)}")
    try:
        return cls(**{name: _read(hints[name], value) for name, value in fields.items()})
    except TypeError as error:
        raise ValueError(f"not a {cls.__name__}: {error}") from error


def _read(hint: Any, value: Any) -> Any:
    """Turn a JSON value into what the annotation asks for."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        if value is None:
            return None
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_dict(hint, value)
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)[0]
        return tuple(_read(inner, element) for element in value)
    return value
