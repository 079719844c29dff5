"""Cross networks against each other: every special form equals the plain one."""

import pytest
import torch
from torch import Tensor, nn

from ml.layers.cross import (
    AttentionCrossLayer,
    CrossAttention,
    CrossLayer,
    CrossNetwork,
    ResidualCrossNetwork,
    default_rank,
)

# Shapes: D = 12, R = 4.
WIDTH, RANK = 12, 4


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _batch(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _attention_layer(**options: bool | int) -> AttentionCrossLayer:
    torch.manual_seed(1)
    attention = CrossAttention(**options)  # type: ignore[arg-type]
    return AttentionCrossLayer(WIDTH, rank=RANK, attention=attention).double()


def test_two_layers_by_hand() -> None:
    network = CrossNetwork(2, layers=2)
    with torch.no_grad():
        for layer in network.layers:
            assert isinstance(layer, CrossLayer)
            layer.up.weight.copy_(torch.tensor([[1.0, 2], [0, 1]]))
            layer.up.bias.copy_(torch.tensor([1.0, -1]))
    # x0 = (2, 3); W x0 + b = (9, 2), x1 = (20, 9); W x1 + b = (39, 8), x2 = (98, 33)
    assert network(torch.tensor([2.0, 3])).tolist() == [98.0, 33.0]


def test_identity_scores_without_skip_are_the_plain_low_rank_layer() -> None:
    attentive = _attention_layer(identity=True, skip=False)
    plain = CrossLayer(WIDTH, rank=RANK).double()
    plain.load_state_dict(
        {
            "down.weight": attentive.value.weight,
            "up.weight": attentive.up.weight,
            "up.bias": attentive.up.bias,
        }
    )
    x, start = _batch(5, WIDTH), _batch(5, WIDTH, seed=2)
    assert torch.equal(attentive(x, start_D=start), plain(x, start_D=start))


def test_a_cold_temperature_picks_the_best_match() -> None:
    layer = _attention_layer(skip=False)
    with torch.no_grad():
        for map_ in (layer.query, layer.key, layer.value):
            map_.weight.copy_(torch.eye(WIDTH, dtype=torch.float64)[:RANK])
        layer.up.weight.copy_(torch.eye(WIDTH, dtype=torch.float64)[:, :RANK])
        layer.up.bias.zero_()
        layer.log_temperature.fill_(-8.0)
    x = torch.zeros(WIDTH, dtype=torch.float64)
    x[:RANK] = torch.tensor([3.0, -3, 1, -1])
    # Each scalar's largest product is with the extreme of its own sign.
    added = layer(x, start_D=torch.ones(WIDTH, dtype=torch.float64)) - x
    assert added.tolist() == pytest.approx([3.0, -3, 3, -3] + [0.0] * 8)


@pytest.mark.parametrize("head_width", [1, 2])
@pytest.mark.parametrize("skip", [True, False])
def test_attention_layer_equals_a_plain_loop(head_width: int, skip: bool) -> None:
    layer = _attention_layer(head_width=head_width, skip=skip)
    with torch.no_grad():
        layer.log_temperature.fill_(0.4)
    x, start = _batch(3, WIDTH), _batch(3, WIDTH, seed=5)
    expected = []
    for row, first in zip(x, start, strict=True):
        q, k, v = (
            (map_.weight @ row).reshape(-1, head_width)
            for map_ in (layer.query, layer.key, layer.value)
        )
        scores = q @ k.T / (head_width**0.5 * 2.718281828459045**0.4)
        mixed = torch.softmax(scores, dim=1) @ v + (v if skip else 0)
        expected.append(first * (layer.up.weight @ mixed.flatten() + layer.up.bias) + row)
    torch.testing.assert_close(layer(x, start_D=start), torch.stack(expected))


def test_parameter_counts_are_the_stated_ones() -> None:
    assert _parameters(CrossLayer(WIDTH)) == 12 * 12 + 12
    assert _parameters(CrossLayer(WIDTH, rank=RANK)) == 2 * 12 * 4 + 12
    assert _parameters(_attention_layer()) == 4 * 12 * 4 + 12 + 1  # and the temperature


def test_orthonormal_factors_of_full_rank_equal_the_full_layer() -> None:
    full, low = CrossLayer(WIDTH).double(), CrossLayer(WIDTH, rank=WIDTH).double()
    basis = torch.linalg.qr(_batch(WIDTH, WIDTH)).Q
    low.load_state_dict(
        {"down.weight": basis.T, "up.weight": full.up.weight @ basis, "up.bias": full.up.bias}
    )
    x, start = _batch(6, WIDTH), _batch(6, WIDTH, seed=3)
    torch.testing.assert_close(full(x, start_D=start), low(x, start_D=start))


def test_residual_network_is_the_plain_one_beside_the_attentive_one() -> None:
    torch.manual_seed(0)
    network = ResidualCrossNetwork(
        WIDTH, rank=RANK, attention=CrossAttention(identity=True, skip=False)
    ).double()
    for plain, attentive in zip(network.plain.layers, network.attentive, strict=True):
        assert isinstance(plain, CrossLayer) and isinstance(attentive, AttentionCrossLayer)
        attentive.up.load_state_dict(plain.up.state_dict())
        assert isinstance(plain.down, nn.Linear)
        attentive.value.load_state_dict(plain.down.state_dict())
    x = _batch(2, 3, WIDTH)
    both = network(x)
    assert both.shape == (2, 3, 24) and network.output_width == 24
    assert torch.equal(both[..., :WIDTH], network.plain(x))
    torch.testing.assert_close(both[..., :WIDTH], both[..., WIDTH:])


def test_summed_network_adds_both_parts() -> None:
    torch.manual_seed(0)
    apart = ResidualCrossNetwork(WIDTH)
    summed = ResidualCrossNetwork(WIDTH, concatenate=False)
    summed.load_state_dict(apart.state_dict())
    x = torch.randn(4, WIDTH)
    left, right = apart(x).chunk(2, dim=-1)
    torch.testing.assert_close(summed(x), left + right)


@pytest.mark.parametrize("magnitude", [1e3, 1e6])
def test_gradients_stay_finite_at_large_input(magnitude: float) -> None:
    torch.manual_seed(0)
    network = ResidualCrossNetwork(32)
    x = (torch.randn(8, 32) * magnitude).requires_grad_()
    network(x).mean().backward()
    gradients = [x.grad, *(parameter.grad for parameter in network.parameters())]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)


def test_default_rank_is_a_quarter_within_bounds() -> None:
    assert [default_rank(width) for width in (3, 64, 4096)] == [1, 16, 256]


def test_refuses_ranks_and_groups_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="rank 13 does not fit width 12"):
        CrossLayer(WIDTH, rank=13)
    with pytest.raises(ValueError, match="head_width 3 does not divide rank 4"):
        _attention_layer(head_width=3)
