"""Places of workers on a real Ray instance: how long there is none, and those that stay behind."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from infra.cluster import ClusterConfig, ray_instance, stop_ray
from infra.places import NoPlaceError, held_places, run_placed

_LIMIT_SECONDS = 3.0


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    ray_instance(ClusterConfig(cpus=2))
    import ray  # after the instance: what it sets in the environment is read at import

    yield ray
    stop_ray()


class _Controller:
    """What holds a place for workers, as Ray Train's does."""

    def take(self) -> None:
        import ray

        assert ray.util.placement_group([{"CPU": 1}]).wait(30)

    def answer(self) -> None:
        """Do nothing."""


def test_what_a_dead_controller_held_is_given_back_and_nothing_else(ray: Any) -> None:
    others = ray.util.placement_group([{"CPU": 1}])
    assert others.wait(30)
    controllers: list[Any] = []

    def run() -> None:
        controller = ray.remote(num_cpus=0)(_Controller).remote()
        controllers.append(controller)
        ray.get(controller.take.remote())
        assert len(held_places()) == 2
        ray.kill(controller)
        ray.get(controller.answer.remote())

    with pytest.raises(ray.exceptions.RayActorError):
        run_placed(run, name="made", remedy="again", limit_seconds=None)
    assert held_places().keys() == {others.id.hex()}


def test_waits_while_there_is_a_place_and_ends_when_there_is_none_for_long(ray: Any) -> None:
    held: list[float] = []

    def run() -> None:
        place = ray.util.placement_group([{"CPU": 1}])
        assert place.wait(30)
        time.sleep(2 * _LIMIT_SECONDS)
        held.append(time.monotonic())
        ray.util.remove_placement_group(place)
        ray.util.placement_group([{"CPU": 9}])  # asked for, but never to be had
        threading.Event().wait()

    with pytest.raises(NoPlaceError, match="made: its workers had no place for 3 s"):
        run_placed(run, name="made", remedy="again", limit_seconds=_LIMIT_SECONDS)
    assert held, "it ended while there was a place"
