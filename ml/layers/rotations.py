"""The rotations that a recipe can name."""

from ml.layers.rotary import NoRotation, Rotary
from ml.layers.siren_rope import SirenConfig, SirenRope
from ml.layers.time_rotary import TimeRotary

Rotation = Rotary | TimeRotary | SirenRope | NoRotation
ROTATIONS = ("none", "ordinal", "time_offset", "siren")


def rotation(
    name: str, *, head_width: int, siren: SirenConfig | None = None, pools: bool = True
) -> Rotation:
    """Return a new rotation by name, all on one base.

    Args:
        name: One of `ROTATIONS`.
        head_width: Width of a head, even.
        siren: Sizes of the networks of "siren"; None for the defaults.
        pools: Whether the model has a final pooling, for which "siren" has a second network.

    Raises:
        ValueError: If the name is unknown or the width odd.
    """
    if name == "none":
        return NoRotation(head_width=head_width)
    if name == "ordinal":
        return Rotary(head_width=head_width)
    if name == "time_offset":
        return TimeRotary(head_width=head_width)
    if name == "siren":
        return SirenRope(head_width=head_width, network=siren, pools=pools)
    raise ValueError(f"no rotation {name!r}; choose one of {ROTATIONS}")
