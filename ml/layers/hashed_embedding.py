"""Embeddings without a vocabulary: hashed ids in quotient-remainder tables.

An id's vector is the sum of two rows, one for its quotient by a divisor M and one for its
remainder, so V ids need V / M + M rows instead of V. An id given as text is first hashed to 64
bits; their two halves are looked up in tables of their own and summed, so that two texts share a
vector only if both halves meet.
"""

import math
from collections.abc import Iterable

import numpy as np
import torch
from sklearn.utils.murmurhash import murmurhash3_32
from torch import Tensor, nn
from torch.nn.functional import embedding

# Shapes: ... any leading shape, N texts, D width.
HASH_SPACE = 2**32
# MurmurHash3 with two seeds stands in for the two halves of one 64-bit hash.
_SEEDS = (0, 0x9747B28C)


def split_hash(texts: Iterable[str]) -> np.ndarray:
    """Return two hashes of each text, uint32 [N, 2]; the same on every machine.

    It is a loop over the texts, some hundred thousand a second: hash when data is prepared, not in
    a training step.
    """
    pairs = [[murmurhash3_32(text, seed, True) for seed in _SEEDS] for text in texts]
    return np.array(pairs, np.uint32).reshape(-1, 2)


class QuotientRemainderEmbedding(nn.Module):
    """Embed ids 0..V-1 as the sum of a quotient's and a remainder's row.

    Source: lirank 5.7 (quotient-remainder trick, arXiv 1909.02107). Sums, because products start
    too close to zero.
    """

    def __init__(self, num_ids: int, *, divisor: int, width: int, scale: float = 0.05) -> None:
        """Create both tables.

        Args:
            num_ids: Number of ids V.
            divisor: Rows M of the remainder table; about sqrt(V) needs the fewest rows.
            width: Width of the vectors.
            scale: Standard deviation of a new vector's coordinates.

        Raises:
            ValueError: If there is no id or the divisor is not within 1 and their number.
        """
        super().__init__()
        if not 1 <= divisor <= num_ids:
            raise ValueError(f"divisor {divisor} must lie within 1 and the {num_ids} ids")
        self._num_ids, self._divisor = num_ids, divisor
        part = scale / math.sqrt(2)
        self.quotient = nn.Parameter(torch.randn(-(-num_ids // divisor), width) * part)
        self.remainder = nn.Parameter(torch.randn(divisor, width) * part)

    def rows(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the row in each table of integer ids, each [...].

        Ids of V and above start again at 0, which is what the halves of a hash need.
        """
        ids = ids.long() % self._num_ids
        return ids // self._divisor, ids % self._divisor

    def forward(self, ids: Tensor) -> Tensor:
        """Return the vectors, [..., D], of integer ids [...]."""
        quotient, remainder = self.rows(ids)
        return embedding(quotient, self.quotient) + embedding(remainder, self.remainder)


class HashedEmbedding(nn.Module):
    """Embed pairs of hashes: each half in a table pair of its own, summed.

    Source: lirank 5.7; how the halves are combined is not published, a sum is our choice.
    """

    def __init__(
        self, width: int, *, num_ids: int = HASH_SPACE, divisor: int = 1000, scale: float = 0.05
    ) -> None:
        """Create the tables: 2 (num_ids / divisor + divisor) rows.

        Args:
            width: Width of the vectors.
            num_ids: Values of a half that are told apart; a small table takes the hash modulo it.
            divisor: Rows of each remainder table.
            scale: Standard deviation of a new vector's coordinates.
        """
        super().__init__()
        self.halves = nn.ModuleList(
            QuotientRemainderEmbedding(
                num_ids, divisor=divisor, width=width, scale=scale / math.sqrt(2)
            )
            for _ in _SEEDS
        )

    def forward(self, hashes: Tensor) -> Tensor:
        """Return the vectors, [..., D], of hashes [..., 2] as `split_hash` makes them.

        Raises:
            ValueError: If the last dimension is not the pair.
        """
        if hashes.shape[-1] != len(self.halves):
            raise ValueError(f"a hashed id is a pair, got {hashes.shape[-1]} numbers")
        first, second = self.halves
        return first(hashes[..., 0]) + second(hashes[..., 1])
