"""Rotary positions: turn pairs of a head's coordinates by an angle that grows with position."""

import torch
from torch import Tensor, nn

# Shapes: B sequences, S events, H heads, W head width (even).


class Rotary(nn.Module):
    """Compute the angles of positions, and turn queries and keys by them."""

    frequencies: Tensor

    def __init__(self, *, head_width: int, base: float = 1000.0) -> None:
        """Choose the frequencies.

        Args:
            head_width: Width of a head, even.
            base: Ratio of the slowest to the fastest period.

        Raises:
            ValueError: If the width is odd.
        """
        super().__init__()
        if head_width % 2:
            raise ValueError(f"rotary positions need an even head width, got {head_width}")
        half = torch.arange(head_width // 2, dtype=torch.float32)
        frequency = base ** (-2 * half / head_width)
        self.register_buffer("frequencies", frequency, persistent=False)

    def angles(self, position_BS: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cosine and sine of each position's angles, [B, 1, S, W / 2]."""
        angle = position_BS[:, None, :, None].float() * self.frequencies
        return angle.cos(), angle.sin()


def rotate(x_BHSW: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair (coordinate i, coordinate i + W / 2) by its angle."""
    cosine, sine = angles
    left, right = x_BHSW.chunk(2, dim=-1)
    return torch.cat([left * cosine - right * sine, left * sine + right * cosine], dim=-1)
