"""The population bench in its short form: every method from one start, on a tiny feed."""

from collections.abc import Iterator

import pytest

from infra.cluster import ClusterConfig, ray_instance, stop_ray
from pipelines.sources.simulation.config import FeedConfig
from tests.benchmarks.feed_exam import feed_exam
from tests.benchmarks.population import METHODS, Size, measure, start_recipe


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    ray_instance(ClusterConfig(cpus=1))
    yield
    stop_ray()


def test_every_method_has_its_entropy_and_its_distance_to_one_cycle() -> None:
    size = Size(users=40, epochs=4, seeds=1, starts=(1.0,), days=14, members=2)
    figures = measure(size)
    assert set(figures) == {
        *(f"{method}_1" for method in METHODS),
        *(f"{method}_seconds" for method in METHODS),
        "hdet_1_minus_one_cycle",
        "population_1_minus_one_cycle",
        "hdet_1_half_width",
        "population_1_half_width",
    }
    assert figures["hdet_1_half_width"] is None  # of a single seed
    for method in METHODS:
        value = figures[f"{method}_1"]
        assert value is not None and 0.7 < value < 1.3
    gap, one = figures["population_1_minus_one_cycle"], figures["one_cycle_1"]
    assert gap is not None and one is not None
    assert figures["population_1"] == pytest.approx(one + gap)
    assert gap != 0


def test_a_start_changes_the_rate_and_leaves_hdet_the_reach_of_a_factor_eight_twice() -> None:
    exam = feed_exam(FeedConfig(users=200, days=14), validation_day=8, test_day=11)
    size = Size(users=200, days=14)
    recipe = start_recipe(exam, size, seed=2, start=1 / 8)
    training = recipe.training
    assert training.learning_rate == pytest.approx(3e-3 / 8)
    assert (training.epochs, training.patience, training.seed) == (12, 12, 2)
    steps = 12 * exam.splits["train"].num_events // 512 // 4
    syncs = steps // training.hdet.sync_steps
    assert training.hdet.gain * training.hdet.spread_fraction * syncs >= 4.16  # 2 ln 8


def test_epochs_that_members_cannot_share_are_refused() -> None:
    with pytest.raises(ValueError, match="epochs must be a multiple of 4, not 6"):
        Size(epochs=6)
