"""Rotations: ordinal, TO-RoPE and SIREN-RoPE. Source: siren-rope 1.7 and 1.8."""

from math import pi
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ml.features import NO_TIME
from ml.layers.rotary import Rotary, rotate
from ml.layers.rotations import ROTATIONS, rotation
from ml.layers.siren_rope import SineNetwork, SirenConfig, SirenRope
from ml.layers.time_features import set_time_origin
from ml.layers.time_rotary import TimeRotary

START = 1_700_006_400
WIDTH = 8
POSITION = torch.arange(6).repeat(2, 1)
TIME = START + torch.tensor([[0, 60, 4000, 90_000, 400_000, 400_000], [7, 8, 9, 10, 11, 12]])
UNDATED = torch.full_like(TIME, NO_TIME)


def _siren(*, pools: bool = True, **network: Any) -> SirenRope:
    torch.manual_seed(0)
    module = SirenRope(head_width=WIDTH, network=SirenConfig(**network), pools=pools)
    set_time_origin(module, START)
    return module


def _heads(seed: int) -> Tensor:
    return torch.randn(2, 3, 6, WIDTH, generator=torch.Generator().manual_seed(seed))


def _scores(turn: Any, time: Tensor) -> Tensor:
    angles = turn.angles(POSITION, time)
    return rotate(_heads(1), angles) @ rotate(_heads(2), angles).transpose(-1, -2)


@pytest.mark.parametrize("name", ROTATIONS)
@pytest.mark.parametrize("pooling", [False, True])
def test_every_rotation_has_one_interface_and_keeps_the_norm_of_each_pair(
    name: str, pooling: bool
) -> None:
    turn = rotation(name, head_width=WIDTH)
    set_time_origin(turn, START)
    angles = turn.angles(POSITION, TIME, pooling=pooling)
    assert all(part.shape == (2, 1, 6, WIDTH // 2) for part in angles)
    assert all(part.dtype == torch.float32 for part in angles)
    x = _heads(0)
    turned = rotate(x, angles)

    def norms(heads: Tensor) -> Tensor:
        return heads.unflatten(-1, (2, -1)).norm(dim=-2)

    torch.testing.assert_close(norms(turned), norms(x))
    assert torch.equal(turned, x) == (name == "none")


def test_siren_without_its_learned_part_is_the_ordinal_rotation_to_the_bit() -> None:
    siren, ordinal = _siren(), Rotary(head_width=WIDTH)
    nn.init.zeros_(siren.frequency)
    for got, expected in zip(
        siren.angles(POSITION, TIME), ordinal.angles(POSITION, TIME), strict=True
    ):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("branches", ["both", "sin", "dnn"])
def test_siren_starts_as_the_ordinal_rotation_only_with_zeroed_last_layers(branches: str) -> None:
    ordinal = Rotary(head_width=WIDTH).angles(POSITION, TIME)
    zeroed = _siren(branches=branches, zero_init_last=True)
    for pooling in (False, True):
        got = zeroed.angles(POSITION, TIME, pooling=pooling)
        assert torch.equal(got[0], ordinal[0]) and torch.equal(got[1], ordinal[1])
    started = _siren(branches=branches).angles(POSITION, TIME)
    assert (started[0] - ordinal[0]).abs().max() > 0.1


def test_scores_do_not_change_when_all_angles_grow_by_a_constant() -> None:
    cosine, sine = _siren().angles(POSITION, TIME)
    turn_c, turn_s = torch.tensor([0.3, 2.0, -1.0, 5.0]).cos(), torch.tensor([0.3, 2, -1, 5]).sin()
    grown = (cosine * turn_c - sine * turn_s, sine * turn_c + cosine * turn_s)

    def scores(angles: tuple[Tensor, Tensor]) -> Tensor:
        return rotate(_heads(1), angles) @ rotate(_heads(2), angles).transpose(-1, -2)

    torch.testing.assert_close(scores(grown), scores((cosine, sine)), atol=1e-5, rtol=1e-5)
    assert (grown[0] - cosine).abs().max() > 0.5


def test_gradients_reach_frequency_order_scale_and_both_branches_of_both_networks() -> None:
    siren = _siren()
    for pooling, seed in ((False, 1), (True, 3)):
        angles = siren.angles(POSITION, TIME, pooling=pooling)
        turned = rotate(_heads(seed), angles) @ rotate(_heads(2), angles).transpose(-1, -2)
        turned.square().sum().backward()
    for name, parameter in siren.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    names = {name.rsplit(".layers", 1)[0] for name, _ in siren.named_parameters()}
    assert {"networks.stack.branches.sin", "networks.pooling.branches.sin"} <= names
    assert sum("branches.dnn" in name for name in names) == 12
    assert {"frequency", "order_scale"} <= names


def test_stack_and_pooling_have_networks_of_their_own_but_share_the_scales() -> None:
    siren = _siren()
    stack, pooling = (siren.angles(POSITION, TIME, pooling=pools)[0] for pools in (False, True))
    assert (stack - pooling).abs().max() > 0.1
    with torch.no_grad():
        siren.order_scale.fill_(0.0)
        siren.frequency.fill_(0.0)
    for pools in (False, True):
        assert torch.equal(siren.angles(POSITION, TIME, pooling=pools)[1], torch.zeros(2, 1, 6, 4))
    with pytest.raises(ValueError, match="pools=True"):
        _siren(pools=False).angles(POSITION, TIME, pooling=True)


def test_fewer_angles_than_pairs_are_tiled_over_neighbouring_pairs() -> None:
    siren = _siren(num_angles=2)
    with torch.no_grad():
        siren.order_scale.fill_(0.0)
    cosine, _ = siren.angles(POSITION, TIME)
    assert torch.equal(cosine[..., 0], cosine[..., 1])
    assert torch.equal(cosine[..., 2], cosine[..., 3])
    assert (cosine[..., 1] - cosine[..., 2]).abs().max() > 0.1
    with pytest.raises(ValueError, match="do not divide"):
        _siren(num_angles=3)


def test_sine_layers_start_in_the_stated_bounds_and_compute_the_stated_formula() -> None:
    torch.manual_seed(0)
    network = SineNetwork((5, 64, 64, 16), omega=10.0)
    bounds = (1 / 5, 0.0306186, 0.0306186)  # 1 / n, then sqrt(6 / 64) / 10
    for layer, bound in zip(network.layers, bounds, strict=True):
        weight = layer.get_parameter("weight").detach()
        assert 0.95 * bound < float(weight.abs().max()) <= bound * 1.0001
    one = SineNetwork((1, 1, 1), omega=10.0)
    for parameter, value in zip(one.parameters(), (0.2, 0.1, 3.0, 0.5), strict=True):
        nn.init.constant_(parameter, value)
    assert one(torch.tensor([[2.0]])).item() == pytest.approx(-2.376773, abs=1e-5)  # 3 sin 5 + .5
    assert float(_siren().frequency[0].detach()) == pytest.approx(pi)


def test_events_of_one_request_turn_alike_and_another_second_turns_otherwise() -> None:
    siren = _siren()
    position, request = torch.full((1, 3), 9), torch.full((1, 3), START + 777)
    cosine, sine = siren.angles(position, request)
    for part in (cosine, sine):
        assert torch.equal(part, part[:, :, :1].expand_as(part))
    hour_later, _ = siren.angles(position, request + 3600)
    assert (cosine - hour_later).abs().max() > 0.01


def test_a_second_across_midnight_hardly_turns() -> None:
    midnight = START + torch.tensor([[-1, 0, 1]])
    cosine, sine = _siren().angles(torch.zeros(1, 3, dtype=torch.long), midnight)
    for part in (cosine, sine):
        assert part.diff(dim=2).abs().max() < 0.01


@pytest.mark.parametrize("name", ["ordinal", "time_offset", "siren"])
def test_bfloat16_passes_have_the_same_angles_and_keep_their_format(name: str) -> None:
    torch.manual_seed(0)
    turn = rotation(name, head_width=WIDTH)
    set_time_origin(turn, START)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = turn.angles(POSITION, TIME)
    for part, expected in zip(narrow, turn.angles(POSITION, TIME), strict=True):
        assert part.dtype == torch.float32
        assert torch.equal(part, expected)
    x = _heads(0).bfloat16()
    turned = rotate(x, narrow)
    assert turned.dtype == torch.bfloat16
    torch.testing.assert_close(
        turned, rotate(x.float(), narrow), atol=0.02, rtol=0.01, check_dtype=False
    )


def test_only_siren_notices_a_shift_of_all_times() -> None:
    for turn in (Rotary(head_width=WIDTH), TimeRotary(head_width=WIDTH, positions_per_day=1.0)):
        set_time_origin(turn, START)
        torch.testing.assert_close(
            _scores(turn, TIME), _scores(turn, TIME + 5 * 3600), atol=1e-4, rtol=1e-4
        )
    siren = _siren()
    assert (_scores(siren, TIME) - _scores(siren, TIME + 5 * 3600)).abs().max() > 0.1


def test_a_day_is_worth_its_positions_on_the_ordinal_frequencies() -> None:
    turn = TimeRotary(head_width=4, base=100.0)
    set_time_origin(turn, START)
    cosine, sine = turn.angles(torch.tensor([[3]]), torch.tensor([[START + 10 * 86_400]]))
    # (3 + 0.01 x 10) x (1, 0.1)
    assert cosine.flatten().tolist() == pytest.approx([-0.999135, 0.952334], abs=1e-5)
    assert sine.flatten().tolist() == pytest.approx([0.041581, 0.305059], abs=1e-5)
    ordinal = Rotary(head_width=WIDTH)
    assert torch.equal(TimeRotary(head_width=WIDTH).frequencies, ordinal.frequencies)


@pytest.mark.parametrize("name", ["time_offset", "siren"])
def test_undated_events_turn_by_their_position_alone(name: str) -> None:
    turn = rotation(name, head_width=WIDTH)
    set_time_origin(turn, START)
    expected = Rotary(head_width=WIDTH).angles(POSITION, UNDATED)
    for part, ordinal in zip(turn.angles(POSITION, UNDATED), expected, strict=True):
        assert torch.equal(part, ordinal)


def test_unknown_names_and_odd_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="choose one of"):
        rotation("semantic", head_width=WIDTH)
    for name in ROTATIONS:
        with pytest.raises(ValueError, match="even head width"):
            rotation(name, head_width=5)
    with pytest.raises(ValueError, match="both, sin or dnn"):
        SirenConfig(branches="cos")  # pyright: ignore[reportArgumentType]
