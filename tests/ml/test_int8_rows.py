"""Middle-max rows: exact ends, errors of half a step at most, and the bytes."""

import pytest
import torch

from ml.layers.int8_rows import Int8Embedding, quantise_rows


def test_a_row_by_hand() -> None:
    # max 2, min -0.55: scale 0.01, middle (256 - 69.85) / 255 = 0.73
    rows = quantise_rows(torch.tensor([[-0.55, 2.0, 0.73, 0.744, 0.746]]))
    assert rows.codes.tolist() == [[-128, 127, 0, 1, 2]]
    assert float(rows.scale) == pytest.approx(0.01)
    assert float(rows.middle) == pytest.approx(0.73)
    got = rows.restore(torch.tensor(0))
    assert got.tolist() == pytest.approx([-0.55, 2.0, 0.73, 0.74, 0.75])


def test_ends_are_exact_and_no_value_moves_more_than_half_a_step() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(300, 128, generator=generator) * torch.rand(300, 1, generator=generator)
    weight += torch.randn(300, 1, generator=generator)
    rows = quantise_rows(weight)
    assert (rows.codes.amin(dim=1) == -128).all() and (rows.codes.amax(dim=1) == 127).all()
    restored = rows.restore(torch.arange(300))
    torch.testing.assert_close(restored.amin(dim=1), weight.amin(dim=1), rtol=0, atol=2e-6)
    torch.testing.assert_close(restored.amax(dim=1), weight.amax(dim=1), rtol=0, atol=2e-6)
    rounding = 2e-7 * weight.abs().amax(dim=1)
    assert ((restored - weight).abs().amax(dim=1) <= rows.scale / 2 + rounding).all()
    assert ((restored - weight).abs().amax(dim=1) >= rows.scale / 4).all()  # it is lossy


def test_constant_rows_come_back_unchanged() -> None:
    weight = torch.tensor([[0.3, 0.3, 0.3], [0.0, 0.0, 0.0], [-7.0, -7.0, -7.0]])
    rows = quantise_rows(weight)
    assert rows.scale.tolist() == [0.0, 0.0, 0.0]
    assert torch.equal(rows.restore(torch.arange(3)), weight)
    # 0.3 is no float32: what is left of it over a step of 0 must not become a code
    finer = quantise_rows(torch.full((1, 3), 0.3, dtype=torch.float64))
    assert finer.codes.tolist() == [[0, 0, 0]]


def test_a_row_of_128_numbers_takes_136_bytes_instead_of_512() -> None:
    weight = torch.randn(10, 128)
    assert quantise_rows(weight).num_bytes == 10 * 136
    assert weight.numel() * weight.element_size() == 10 * 512


def test_the_module_serves_the_same_rows_after_a_save() -> None:
    torch.manual_seed(0)
    trained = torch.nn.Embedding(50, 16)
    served = Int8Embedding(trained.weight)
    again = Int8Embedding(torch.zeros(50, 16))
    again.load_state_dict(served.state_dict())
    ids = torch.tensor([[0, 7], [7, 49]], dtype=torch.int32)
    assert torch.equal(served(ids), again(ids)) and served(ids).shape == (2, 2, 16)
    half_step = served.rows.scale[ids.long()][..., None] / 2 + 1e-6
    assert ((served(ids) - trained(ids)).abs() <= half_step).all()
    assert not list(served.parameters())


def test_refuses_values_that_are_not_finite_and_what_is_no_matrix() -> None:
    with pytest.raises(ValueError, match="not finite"):
        quantise_rows(torch.tensor([[1.0, float("nan")]]))
    with pytest.raises(ValueError, match="a matrix with columns"):
        quantise_rows(torch.zeros(3, 0))
