"""The isotonic layer against its dense formula, scikit-learn, and the maps it has to learn."""

import math

import numpy as np
import pytest
import torch
from sklearn.isotonic import IsotonicRegression
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from ml.layers.isotonic import IsotonicConfig, IsotonicLayer
from ml.metrics import calibration_error

LOW, HIGH, STEP, BUCKETS = -17.0, 8.0, 0.05, 501
pytestmark = pytest.mark.usefixtures("one_thread")


def _random_layer(actions: int = 1, *, slope: str = "softplus") -> IsotonicLayer:
    torch.manual_seed(0)
    layer = IsotonicLayer(actions, config=IsotonicConfig(slope=slope)).double()
    with torch.no_grad():
        layer.raw_CAN.normal_(0.0, 1.0)
        layer.bias_CA.normal_()
    return layer


def _dense(logit: float, slopes: np.ndarray, bias: float) -> float:
    """Weigh every bucket's slope, as the paper writes it."""
    shifted = min(max(logit, LOW), HIGH) - LOW + STEP
    last = min(math.floor(shifted / STEP), BUCKETS - 1)
    filled = [STEP] * last + [shifted - last * STEP] + [0.0] * (BUCKETS - last - 1)
    return math.fsum(f * s for f, s in zip(filled, slopes, strict=True)) + LOW - STEP + bias


def _fit(logits: Tensor, targets: Tensor, *, steps: int = 300) -> IsotonicLayer:
    layer = IsotonicLayer(1)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        binary_cross_entropy_with_logits(layer(logits[:, None])[:, 0], targets).backward()
        optimizer.step()
    return layer.eval()


def _curve(layer: IsotonicLayer, logits: Tensor) -> np.ndarray:
    with torch.no_grad():
        return torch.sigmoid(layer(logits[:, None])[:, 0]).numpy()


@pytest.mark.parametrize("slope", ["softplus", "relu"])
def test_constant_work_form_equals_the_dense_form(slope: str) -> None:
    layer = _random_layer(slope=slope)
    slopes = layer.slopes()[0, 0].detach().numpy()
    bias = float(layer.bias_CA[0, 0].detach())
    inputs = [*np.random.default_rng(0).uniform(LOW - 1, HIGH + 1, 400), LOW, HIGH, 0.0]
    got = layer(torch.tensor(inputs, dtype=torch.float64)[:, None])[:, 0].detach().numpy()
    expected = np.array([_dense(float(x), slopes, bias) for x in inputs])
    error = np.abs(got - expected) / np.maximum(1, np.abs(expected))
    assert error.max() < 4e-15


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("slope", ["softplus", "relu"])
def test_a_new_layer_is_exactly_the_identity_within_range_and_clips_outside(
    dtype: torch.dtype, slope: str
) -> None:
    layer = IsotonicLayer(2, config=IsotonicConfig(slope=slope)).to(dtype)
    inside = torch.linspace(LOW, HIGH, 9998, dtype=dtype).reshape(-1, 2)
    assert torch.equal(layer(inside), inside)
    outside = torch.tensor([[-1e9, LOW - 1e-3], [1e9, HIGH + 1e-3]], dtype=dtype)
    assert layer(outside).tolist() == [[LOW, LOW], [HIGH, HIGH]]


def test_half_precision_logits_are_calibrated_in_single_precision() -> None:
    layer = _random_layer().float()
    logits = torch.linspace(LOW, HIGH, 333, dtype=torch.bfloat16)[:, None]
    got = layer(logits)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, layer(logits.double()).float(), rtol=0, atol=2e-5)


@pytest.mark.parametrize("slope", ["softplus", "relu"])
def test_never_falls_on_a_fine_grid(slope: str) -> None:
    layer = _random_layer(slope=slope)
    grid = torch.linspace(LOW - 1, HIGH + 1, 20001, dtype=torch.float64)[:, None]
    rises = layer(grid).detach().diff(dim=0)
    assert float(rises.min()) >= -1e-13
    assert float(rises.max()) > 1e-4


def test_gradient_at_the_logit_is_the_bucket_slope() -> None:
    layer = _random_layer()
    logits = torch.tensor([[-30.0], [0.01], [7.99]], dtype=torch.float64, requires_grad=True)
    layer(logits).sum().backward()
    slopes = layer.slopes()[0, 0].tolist()
    assert logits.grad is not None
    # bucket of 0.01: floor((0.01 + 17.05) / 0.05) = 341; of 7.99: 500
    assert logits.grad[:, 0].tolist() == pytest.approx([0.0, slopes[341], slopes[500]])


def test_contexts_and_actions_have_maps_of_their_own() -> None:
    layer = IsotonicLayer(2, contexts=3, config=IsotonicConfig(slope="relu"))
    with torch.no_grad():
        layer.raw_CAN[1, 0] = 2.0
        layer.bias_CA[2, 1] = 0.5
    logits = torch.tensor([[0.0, 0.0]]).expand(3, 2)
    # context 1 doubles the height over L - step for action 0: 2 * 17.05 - 17.05
    expected = torch.tensor([[0.0, 0.0], [17.05, 0.0], [0.0, 0.5]])
    torch.testing.assert_close(layer(logits, torch.tensor([0, 1, 2])), expected)
    assert layer(torch.zeros(4, 5, 2), torch.zeros(4, 5, dtype=torch.int32)).shape == (4, 5, 2)


def test_relu_buckets_die_and_softplus_buckets_do_not() -> None:
    for slope, is_alive in (("relu", False), ("softplus", True)):
        layer = IsotonicLayer(1, config=IsotonicConfig(slope=slope))
        with torch.no_grad():
            layer.raw_CAN.fill_(-1.0)
        layer(torch.zeros(1, 1)).sum().backward()
        assert layer.raw_CAN.grad is not None
        assert bool(layer.raw_CAN.grad.abs().sum() > 0) is is_alive


def test_learns_the_square() -> None:
    share = torch.linspace(0.001, 0.999, 2000)
    layer = _fit(torch.logit(share), share**2)
    assert np.abs(_curve(layer, torch.logit(share)) - (share**2).numpy()).max() < 0.02


def test_levels_out_where_the_target_falls() -> None:
    share = torch.linspace(0.001, 0.999, 2000)
    target = torch.where(share <= 0.95, share**2, (1.9 - share) ** 2)
    curve = _curve(_fit(torch.logit(share), target, steps=1000), torch.logit(share))
    best = IsotonicRegression().fit_transform(share.numpy(), target.numpy())
    assert np.abs(curve - best).max() < 0.02
    on_top = curve[share.numpy() > 0.95]
    assert on_top.max() - on_top.min() < 0.005
    assert (0.95**2 - 0.9**2) > 0.09  # what the square would still have risen just before


def test_mends_a_distorted_logit() -> None:
    generator = torch.Generator().manual_seed(0)
    logit = torch.randn(240_000, generator=generator) * 1.5
    label = torch.bernoulli(torch.sigmoid(logit), generator=generator)
    distorted = 2 * logit - 1
    layer = _fit(distorted[:40_000], label[:40_000], steps=150)
    held = label[40_000:].numpy().astype(np.int64)
    before = calibration_error(held, torch.sigmoid(distorted[40_000:]).numpy())
    after = calibration_error(held, _curve(layer, distorted[40_000:]))
    assert before > 0.08 and after < 0.01


def test_refuses_ranges_contexts_and_widths_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="holds no step"):
        IsotonicConfig(low=1.0, high=1.0)
    with pytest.raises(ValueError, match="slope must be"):
        IsotonicConfig(slope="tanh")
    with pytest.raises(ValueError, match="got 3 logits per row, not 2"):
        IsotonicLayer(2)(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="has 4 contexts"):
        IsotonicLayer(2, contexts=4)(torch.zeros(1, 2))
