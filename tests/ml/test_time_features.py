"""Features of timestamps: exact phases, whole weeks, midnights, the origin, undated events."""

import pytest
import torch
from torch import Tensor

from ml.features import NO_TIME
from ml.layers.time_features import TimeEmbedding, TimeFeatures, set_time_origin
from ml.layers.time_rotary import TimeRotary

WEEK = 7 * 86_400
MIDNIGHT = 19_676 * 86_400  # 2023-11-15 00:00 UTC, a Wednesday: six days into an epoch week
SECOND_OF_A_DAY = 7.272205e-5  # 2 pi / 86400


def _features(*seconds: int, origin: int = MIDNIGHT) -> Tensor:
    module = TimeFeatures()
    module.set_origin(origin)
    return module(torch.tensor([seconds]))[0]


def test_quarters_of_a_day_and_of_a_week_are_where_they_belong() -> None:
    features = _features(MIDNIGHT, MIDNIGHT + 6 * 3600, MIDNIGHT + 12 * 3600)
    expected = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    torch.testing.assert_close(features[:, :2], expected, atol=1e-6, rtol=0)
    thursday = MIDNIGHT + 86_400
    features = _features(thursday, thursday + WEEK // 4, thursday + WEEK // 2)
    torch.testing.assert_close(features[:, 2:4], expected, atol=1e-6, rtol=0)


def test_seconds_stay_apart_where_float32_holds_128_of_them() -> None:
    assert float(torch.tensor(MIDNIGHT + 1).float()) == MIDNIGHT
    sine = _features(MIDNIGHT, MIDNIGHT + 1, MIDNIGHT + 2)[:, 1]
    assert sine.tolist() == pytest.approx([0, SECOND_OF_A_DAY, 2 * SECOND_OF_A_DAY], abs=1e-9)


def test_a_whole_week_later_the_first_four_features_are_the_same_bits() -> None:
    seconds = [1_700_000_000 + 86_461 * step for step in range(20)]
    now, later = _features(*seconds), _features(*[second + WEEK for second in seconds])
    assert torch.equal(now[:, :4], later[:, :4])
    assert ((later - now)[:, 4] - 7 / 365).abs().max() < 1e-6


@pytest.mark.parametrize("boundary", [MIDNIGHT, MIDNIGHT + 86_400])  # the latter ends a week too
def test_midnight_is_no_step(boundary: int) -> None:
    before, at, after = _features(boundary - 1, boundary, boundary + 1)
    for change in (at - before, after - at):
        assert change.abs().max() < 1.01 * SECOND_OF_A_DAY
        assert change[1] > 0.99 * SECOND_OF_A_DAY


def test_the_offset_counts_years_of_365_days_from_the_origin() -> None:
    years = _features(MIDNIGHT + 365 * 86_400, MIDNIGHT - 73 * 86_400)[:, 4]
    assert years.tolist() == pytest.approx([1.0, -0.2])


def test_undated_events_have_no_features_and_no_embedding() -> None:
    assert not _features(NO_TIME).any()
    embedding = TimeEmbedding(8)
    added = embedding(torch.tensor([[NO_TIME, MIDNIGHT]]))
    assert not added[0, 0].any() and added[0, 1].abs().max() > 0.01


def test_the_origin_travels_with_the_weights_to_the_second() -> None:
    model = torch.nn.ModuleDict({"time": TimeEmbedding(8), "turn": TimeRotary(head_width=4)})
    set_time_origin(model, 1_700_000_001)
    copy = torch.nn.ModuleDict({"time": TimeEmbedding(8), "turn": TimeRotary(head_width=4)})
    copy.load_state_dict(model.bfloat16().state_dict())
    for name in ("time.time.origin", "turn.origin"):
        assert copy.get_buffer(name).item() == 1_700_000_001


def test_rounded_times_and_an_undated_origin_are_refused() -> None:
    with pytest.raises(ValueError, match="whole seconds"):
        TimeFeatures()(torch.tensor([[1.7e9]]))
    with pytest.raises(ValueError, match="dated event"):
        TimeFeatures().set_origin(NO_TIME)
