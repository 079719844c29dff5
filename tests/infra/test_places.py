"""Places of workers on a real Ray instance: how long there is none, and those that stay behind."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra import ray_training
from infra.cluster import ClusterConfig, ray_instance, stop_ray
from infra.errors import UserError
from infra.places import held_places, run_placed
from infra.ray_training import FitPlan

_LIMIT_SECONDS = 6.0


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    ray_instance(ClusterConfig(cpus=2, placement_timeout_seconds=_LIMIT_SECONDS))
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
        while True:  # nothing waits for the kill, and it may still answer for a moment
            ray.get(controller.answer.remote())

    with pytest.raises(ray.exceptions.RayActorError):
        run_placed(run, name="made", remedy="again", limit_seconds=None)
    assert held_places().keys() == {others.id.hex()}


def test_waits_while_there_is_a_place_and_ends_when_there_is_none_for_long(
    ray: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[float] = []

    def run() -> None:
        place = ray.util.placement_group([{"CPU": 1}])
        assert place.wait(30)
        time.sleep(2 * _LIMIT_SECONDS)
        held.append(time.monotonic())
        ray.util.remove_placement_group(place)
        ray.util.placement_group([{"CPU": 9}])  # asked for, but never to be had
        threading.Event().wait()

    monkeypatch.setattr(ray_training, "_GRACE_SECONDS", 0.0)
    plan = FitPlan(name="made", folder=tmp_path, workers=2, least_workers=1)
    with pytest.raises(UserError, match="training made: its workers found no free processor"):
        ray_training.run_plan(run, plan, {"CPU": 1.0})
    assert held, "it ended while there was a place"
    assert not ray.is_initialized(), "it has left Ray"
