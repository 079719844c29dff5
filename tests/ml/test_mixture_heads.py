"""The mixture of experts against a plain loop over experts and groups."""

import pytest
import torch

from ml.layers.cross import CrossLayer
from ml.layers.mixture_heads import (
    ExpertConfig,
    Experts,
    MultiGateMixture,
    ParallelCross,
    StackedLinear,
)

WIDTH = 6
CROSSED = ExpertConfig(experts=3, hidden=5, output=4, cross_layers=2, cross_rank=2)


def _as_single_expert(experts: Experts, number: int) -> ParallelCross:
    """Return one expert as a head of its own, made of plain linear layers."""
    head = ParallelCross(WIDTH, config=CROSSED)
    pairs: list[tuple[torch.nn.Linear, StackedLinear]] = [
        (head.hidden, experts.hidden),
        (head.output, experts.output),
    ]
    for layer, down, up in zip(head.cross.layers, experts.down, experts.up, strict=True):
        assert isinstance(layer, CrossLayer) and isinstance(layer.down, torch.nn.Linear)
        assert isinstance(down, StackedLinear) and isinstance(up, StackedLinear)
        pairs += [(layer.down, down), (layer.up, up)]
    with torch.no_grad():
        for plain, stacked in pairs:
            plain.weight.copy_(stacked.weight_EIO[number].T)
            if stacked.bias_EO is not None:
                plain.bias.copy_(stacked.bias_EO[number])
    return head


def test_stacked_experts_equal_a_loop_over_parallel_cross_heads() -> None:
    torch.manual_seed(0)
    experts = Experts(WIDTH, config=CROSSED)
    x = torch.randn(2, 7, WIDTH)
    expected = torch.stack([_as_single_expert(experts, e)(x) for e in range(3)], dim=-2)
    assert expected.shape == (2, 7, 3, 4)
    torch.testing.assert_close(experts(x), expected)
    torch.testing.assert_close(experts(x[1, 3]), expected[1, 3])


def test_mlp_experts_have_no_cross_part() -> None:
    config = ExpertConfig(experts=2, hidden=5, output=4)
    experts = Experts(WIDTH, config=config)
    assert sum(p.numel() for p in experts.parameters()) == 2 * (6 * 5 + 5 + 5 * 4 + 4)
    x = torch.randn(3, WIDTH)
    hidden = torch.relu(x @ experts.hidden.weight_EIO[1] + experts.hidden.bias_EO[1])  # type: ignore[index]
    expected = hidden @ experts.output.weight_EIO[1] + experts.output.bias_EO[1]  # type: ignore[index]
    torch.testing.assert_close(experts(x)[:, 1], expected)


def test_groups_weigh_the_same_experts_by_their_own_softmax() -> None:
    torch.manual_seed(0)
    mixture = MultiGateMixture(
        WIDTH, experts=Experts(WIDTH, config=CROSSED), groups=2, gate_dropout=0.5
    ).eval()
    x = torch.randn(5, WIDTH)
    vectors = mixture.experts(x)
    for group in range(2):
        rows = slice(3 * group, 3 * group + 3)
        gate = torch.softmax(x @ mixture.gates.weight[rows].T + mixture.gates.bias[rows], dim=-1)
        expected = sum(gate[:, e, None] * vectors[:, e] for e in range(3))
        torch.testing.assert_close(mixture(x)[:, group], expected)


def test_dropout_comes_after_the_softmax_and_does_not_renormalise() -> None:
    torch.manual_seed(0)
    experts = Experts(WIDTH, config=CROSSED)
    with torch.no_grad():  # expert e always answers with the unit vector e
        experts.output.weight_EIO.zero_()
        assert experts.output.bias_EO is not None
        experts.output.bias_EO.copy_(torch.eye(3, 4))
    mixture = MultiGateMixture(WIDTH, experts=experts, groups=2, gate_dropout=0.25).train()
    x = torch.randn(4000, WIDTH)
    kept = mixture(x)[..., :3].detach()
    before = mixture.weights(x).detach()
    is_zero = kept == 0
    torch.testing.assert_close(kept[~is_zero], (before / 0.75)[~is_zero])
    assert float(is_zero.float().mean()) == pytest.approx(0.25, abs=0.02)
    torch.testing.assert_close(kept.mean(dim=0), before.mean(dim=0), rtol=0, atol=0.02)
    assert float(kept.sum(dim=-1).std()) > 0.1


def test_every_parameter_is_reached() -> None:
    torch.manual_seed(0)
    mixture = MultiGateMixture(WIDTH, experts=Experts(WIDTH, config=CROSSED), groups=2)
    mixture(torch.randn(16, WIDTH)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in mixture.parameters())


def test_refuses_what_makes_no_mixture() -> None:
    with pytest.raises(ValueError, match="cross_layers of at least 1"):
        ParallelCross(WIDTH, config=ExpertConfig())
    with pytest.raises(ValueError, match="must be at least 1"):
        ExpertConfig(experts=0)
    with pytest.raises(ValueError, match="cross_layers must not be negative"):
        ExpertConfig(cross_layers=-1)
    with pytest.raises(ValueError, match="gate_dropout"):
        MultiGateMixture(WIDTH, experts=Experts(WIDTH, config=CROSSED), groups=2, gate_dropout=1.0)
