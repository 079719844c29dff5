"""Rotary positions: turn pairs of a head's coordinates by an angle that grows with position.

Every rotation of this package has the method `angles(position_BS, time_BS, *, pooling=False)` and
returns absolute angles, so that a context and its candidates can be turned apart from each other.
Scores depend on differences of angles only; values are not turned.
"""

import torch
from torch import Tensor, nn

# Shapes: B sequences, S events, H heads, W head width (even).
Angles = tuple[Tensor, Tensor]
DEFAULT_BASE = 1000.0


class Rotary(nn.Module):
    """Turn by the ordinal position alone."""

    frequencies: Tensor

    def __init__(self, *, head_width: int, base: float = DEFAULT_BASE) -> None:
        """Choose the frequencies.

        Args:
            head_width: Width of a head, even.
            base: Ratio of the slowest to the fastest period.

        Raises:
            ValueError: If the width is odd.
        """
        super().__init__()
        frequency = pair_frequencies(head_width, base=base)
        self.register_buffer("frequencies", frequency, persistent=False)

    def angles(self, position_BS: Tensor, time_BS: Tensor, *, pooling: bool = False) -> Angles:
        """Return the cosine and sine of each position's angles, [B, 1, S, W / 2], float32.

        Args:
            position_BS: Ordinal positions.
            time_BS: Ignored.
            pooling: Ignored: the final pooling turns as the stack does.
        """
        angle = position_BS[:, None, :, None].float() * self.frequencies
        return angle.cos(), angle.sin()


class NoRotation(nn.Module):
    """Turn nothing: attention without positions."""

    def __init__(self, *, head_width: int) -> None:
        """Remember the number of pairs.

        Args:
            head_width: Width of a head, even.

        Raises:
            ValueError: If the width is odd.
        """
        super().__init__()
        self._pairs = len(pair_frequencies(head_width, base=DEFAULT_BASE))

    def angles(self, position_BS: Tensor, time_BS: Tensor, *, pooling: bool = False) -> Angles:
        """Return ones and zeros, [B, 1, S, W / 2], float32; all arguments but the shape ignored."""
        batch, steps = position_BS.shape
        shape = (batch, 1, steps, self._pairs)
        one = torch.ones((), device=position_BS.device)
        return one.expand(shape), torch.zeros_like(one).expand(shape)


def pair_frequencies(head_width: int, *, base: float) -> Tensor:
    """Return base^(-2j / W) of the pairs j = 0 .. W/2 - 1, float32 [W / 2].

    Raises:
        ValueError: If the width is odd.
    """
    if head_width % 2:
        raise ValueError(f"rotary positions need an even head width, got {head_width}")
    pair = torch.arange(head_width // 2, dtype=torch.float32)
    return base ** (-2 * pair / head_width)


def rotate(x_BHSW: Tensor, angles: Angles) -> Tensor:
    """Turn each pair (coordinate i, coordinate i + W / 2) by its angle, in the angles' precision.

    Returns:
        The turned tensor in the input's own format.
    """
    cosine, sine = angles
    left, right = x_BHSW.chunk(2, dim=-1)
    turned = torch.cat([left * cosine - right * sine, left * sine + right * cosine], dim=-1)
    return turned.to(x_BHSW.dtype)
