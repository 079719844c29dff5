"""Dense gates: open at first, and equal to their formula."""

import pytest
import torch

from ml.layers.gating import DenseGate, gated_mlp


def test_gates_start_open() -> None:
    gate = DenseGate(16)
    # A hidden vector of zeros is gated by the bias alone: the slope there is sigmoid(2).
    slope = torch.autograd.functional.jacobian(gate, torch.zeros(16))
    torch.testing.assert_close(slope, torch.eye(16) * 0.8807970779778823)  # type: ignore[arg-type]


def test_gate_by_hand() -> None:
    gate = DenseGate(2, bottleneck=1)
    with torch.no_grad():
        gate.down.weight.copy_(torch.tensor([[1.0, 1]]))
        gate.up.weight.copy_(torch.tensor([[-1.0], [0]]))
    # h = (1, 3): narrow = 4, gates sigmoid(2 - 4) and sigmoid(2)
    expected = [0.11920292202211755, 3 * 0.8807970779778823]
    assert gate(torch.tensor([1.0, 3])).tolist() == pytest.approx(expected)


def test_bottleneck_is_an_eighth_and_sets_the_cost() -> None:
    assert sum(p.numel() for p in DenseGate(64).parameters()) == 2 * 64 * 8 + 64
    assert sum(p.numel() for p in DenseGate(4).parameters()) == 2 * 4 * 1 + 4


def test_gated_network_passes_gradients_to_every_parameter() -> None:
    torch.manual_seed(0)
    network = gated_mlp((6, 16, 8))
    network(torch.randn(32, 6)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    assert [type(part).__name__ for part in gated_mlp((6, 16), gated=False)] == ["Linear", "ReLU"]


def test_refuses_networks_and_gates_without_width() -> None:
    with pytest.raises(ValueError, match="bottleneck must be at least 1"):
        DenseGate(8, bottleneck=0)
    with pytest.raises(ValueError, match="a hidden layer"):
        gated_mlp((8,))
