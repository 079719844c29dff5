"""Embedding rows in 8 bits for serving: each row has its own scale and middle."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

# Shapes: ... any leading shape, N rows, D width.
_LOWEST, _HIGHEST = -128, 127


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Int8Rows:
    """Hold quantised rows: D + 8 bytes for a row of D numbers.

    Attributes:
        codes: int8 [N, D]; a row's smallest value has -128, its largest 127.
        scale: Step between codes, float32 [N]; 0 for a row of equal values.
        middle: Value of code 0, float32 [N].
    """

    codes: Tensor
    scale: Tensor
    middle: Tensor

    @property
    def num_bytes(self) -> int:
        """Return the bytes of everything that is kept."""
        return sum(t.numel() * t.element_size() for t in (self.codes, self.scale, self.middle))

    def restore(self, rows: Tensor) -> Tensor:
        """Return the float32 values, [..., D], of row numbers [...]."""
        rows = rows.long()
        scale, middle = self.scale[rows], self.middle[rows]
        return torch.addcmul(middle[..., None], self.codes[rows], scale[..., None])


def quantise_rows(weight_ND: Tensor) -> Int8Rows:
    """Quantise each row to the 256 codes between its smallest and largest value.

    With 255 steps between the ends, the middle is (128 max + 127 min) / 255: the ends become 127
    and -128. No value moves by more than half a step, apart from the rounding of float32.

    Args:
        weight_ND: Float rows.

    Raises:
        ValueError: If it is no matrix with columns, or a value is not finite.

    Source: lirank 5.7 (middle-max).
    """
    if weight_ND.ndim != 2 or weight_ND.shape[1] == 0:
        raise ValueError(f"rows must be a matrix with columns, got {tuple(weight_ND.shape)}")
    if not torch.isfinite(weight_ND).all():
        raise ValueError("rows hold values that are not finite; do not serve these weights")
    exact_ND = weight_ND.detach().double()
    low_N, high_N = exact_ND.amin(dim=1), exact_ND.amax(dim=1)
    steps = _HIGHEST - _LOWEST
    scale_N = ((high_N - low_N) / steps).float()
    middle_N = ((-_LOWEST * high_N + _HIGHEST * low_N) / steps).float()
    divisor_N = torch.where(scale_N > 0, scale_N, 1.0).double()
    codes_ND = (exact_ND - middle_N.double()[:, None]) / divisor_N[:, None]
    codes_ND = codes_ND.round().clamp(_LOWEST, _HIGHEST).to(torch.int8)
    return Int8Rows(codes=codes_ND, scale=scale_N, middle=middle_N)


class Int8Embedding(nn.Module):
    """Serve a table from its 8-bit rows; it has buffers, and no parameters to train."""

    codes: Tensor
    scale: Tensor
    middle: Tensor

    def __init__(self, weight_ND: Tensor) -> None:
        """Quantise a trained table.

        Args:
            weight_ND: Float rows, such as the weight of `nn.Embedding`.
        """
        super().__init__()
        rows = quantise_rows(weight_ND)
        self.register_buffer("codes", rows.codes)
        self.register_buffer("scale", rows.scale)
        self.register_buffer("middle", rows.middle)

    @property
    def rows(self) -> Int8Rows:
        """Return the quantised rows."""
        return Int8Rows(codes=self.codes, scale=self.scale, middle=self.middle)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the float32 vectors, [..., D], of integer ids [...]."""
        return self.rows.restore(ids)
