"""Hashes against published values, and that ids do not meet where they must not."""

import numpy as np
import pytest
import torch

from ml.layers.hashed_embedding import (
    HashedEmbedding,
    QuotientRemainderEmbedding,
    split_hash,
)


def test_hashes_are_the_published_test_values() -> None:
    fox = "The quick brown fox jumps over the lazy dog"
    got = split_hash(["", "test", "Hello, world!", fox])
    expected = [
        [0x00000000, 0xEBB6C228],
        [0xBA6BD213, 0x704B81DC],
        [0xC0363E43, 0x24884CBA],
        [0x2E4FF723, 0x2FA826CD],
    ]
    assert got.dtype == np.uint32 and got.tolist() == expected
    assert split_hash([]).shape == (0, 2)


def test_halves_collide_as_often_as_chance_and_independently() -> None:
    count = 60_000
    hashes = split_hash(f"urn:member:{number}" for number in range(count)).astype(np.uint64)
    joint_bits = (hashes[:, 0] % 4096) * np.uint64(4096) + hashes[:, 1] % 4096
    # In 24 bits, 60,000^2 / 2 / 2^24 = 107 ids meet an earlier one, give or take 10; half the bits
    # from each hash are as good as 24 of one only if the two hashes are independent.
    for bits in (hashes[:, 0] % 2**24, hashes[:, 1] % 2**24, hashes[:, 0] >> 8, joint_bits):
        assert 67 < count - len(np.unique(bits)) < 147
    both = hashes @ np.array([2**32, 1], np.uint64)
    assert len(np.unique(both)) == count  # 64 bits: 1e-10 expected


def test_every_id_has_a_pair_of_rows_of_its_own() -> None:
    table = QuotientRemainderEmbedding(7 * 13, divisor=7, width=2)
    quotient, remainder = table.rows(torch.arange(7 * 13))
    assert len(set(zip(quotient.tolist(), remainder.tolist(), strict=True))) == 7 * 13
    assert table.quotient.shape == (13, 2) and table.remainder.shape == (7, 2)
    assert QuotientRemainderEmbedding(92, divisor=7, width=2).quotient.shape == (14, 2)


def test_vectors_are_sums_of_both_rows() -> None:
    table = QuotientRemainderEmbedding(12, divisor=5, width=2)
    with torch.no_grad():
        table.quotient.copy_(torch.tensor([[10.0, 0], [20, 0], [30, 0]]))
        table.remainder.copy_(torch.arange(10.0).reshape(5, 2))
    # 11 = 2 * 5 + 1; 3 = 0 * 5 + 3; 12 starts again at 0
    got = table(torch.tensor([[11, 3], [12, 5]], dtype=torch.int32))
    assert got.tolist() == [[[32.0, 3.0], [16.0, 7.0]], [[10.0, 1.0], [20.0, 1.0]]]


def test_hashed_vectors_are_sums_over_both_halves() -> None:
    torch.manual_seed(0)
    table = HashedEmbedding(4, num_ids=1000, divisor=32)
    assert sum(p.numel() for p in table.parameters()) == 2 * (32 + 32) * 4
    hashes = torch.tensor([[3, 4], [1003, 4], [3, 5]])
    got = table(hashes)
    first, second = table.halves
    torch.testing.assert_close(got[0], first(torch.tensor(3)) + second(torch.tensor(4)))
    assert torch.equal(got[0], got[1]) and not torch.equal(got[0], got[2])


def test_the_whole_hash_space_takes_four_million_rows_a_half() -> None:
    # ceil(2^32 / 1000) = 4,294,968 quotients and 1000 remainders in each half
    assert sum(p.numel() for p in HashedEmbedding(1).parameters()) == 2 * (4_294_968 + 1000)


def test_tables_of_the_whole_hash_space_take_any_hash() -> None:
    table = HashedEmbedding(1, divisor=65_536)
    hashes = torch.from_numpy(np.array([[2**32 - 1, 0]], np.uint32))
    rows = table.halves[0].rows(hashes[:, 0].long())  # type: ignore[operator]
    assert [int(row) for row in rows] == [65_535, 65_535]
    assert table(hashes.long()).shape == (1, 1)
    assert torch.equal(table(hashes), table(hashes.long()))


def test_new_vectors_have_the_asked_scale_and_learn() -> None:
    torch.manual_seed(0)
    table = HashedEmbedding(16, num_ids=2**20, divisor=1024, scale=0.1)
    vectors = table(torch.randint(2**32, (4000, 2)))
    assert float(vectors.detach().std()) == pytest.approx(0.1, rel=0.05)
    vectors.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in table.parameters())


def test_refuses_divisors_and_hashes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="divisor 11 must lie within 1 and the 10 ids"):
        QuotientRemainderEmbedding(10, divisor=11, width=2)
    with pytest.raises(ValueError, match="a hashed id is a pair, got 3"):
        HashedEmbedding(2, num_ids=10, divisor=2)(torch.zeros(1, 3, dtype=torch.int64))
