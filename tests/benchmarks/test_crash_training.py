"""The drill of killed workers in its short form: two kills."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.cluster import ClusterConfig, ray_instance, stop_ray
from tests.benchmarks.drill_crash_training import drill


@pytest.fixture(autouse=True)
def _ray() -> Iterator[None]:
    ray_instance(ClusterConfig(cpus=2))
    yield
    stop_ray()


def test_a_killed_training_ends_with_the_bits_of_an_undisturbed_one(tmp_path: Path) -> None:
    figures = drill(tmp_path, kills=2)
    assert figures == {
        "drill": "crash-training", "faults": 2, "lost": 0, "doubled": 0, "equal": True
    }  # fmt: skip
