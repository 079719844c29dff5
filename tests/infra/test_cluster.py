"""Ray: trainings on a real instance; one fit that works, one that fails, one without room."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import psutil
import pytest

from infra.cluster import ClusterConfig, ray_instance, stop_ray
from infra.errors import UserError
from infra.places import held_places
from infra.ray_training import FitPlan, FitResult, TrainFunction, fit
from infra.worker_loop import WorkerContext
from infra.worker_size import check_room, worker_resources


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_ADDRESS", "127.0.0.1:9")  # of a cluster that is not asked for
        ray_instance(ClusterConfig(cpus=2, cpus_per_worker=0.5, placement_timeout_seconds=10))
        yield
        stop_ray()


def _fit(
    train_fn: TrainFunction, config: dict[str, Any], *, workers: int, folder: Path, name: str
) -> FitResult:
    return fit(train_fn, config, FitPlan(name=name, folder=folder, workers=workers))


def _average_ranks(config: Mapping[str, Any], context: WorkerContext) -> None:
    import torch
    from torch import distributed

    model = context.prepare(torch.nn.Linear(1, 1))
    total = torch.tensor([float(context.rank + 1)])
    distributed.all_reduce(total)
    for step in range(config["steps"]):
        checkpoint = context.folder / f"made-by-{context.rank}" if step == 1 else None
        if checkpoint:
            checkpoint.mkdir()
            (checkpoint / "weights.json").write_text(json.dumps({"step": step}))
        context.report(
            {
                "step": step,
                "total": total.item(),
                "threads": torch.get_num_threads(),
                "parameters": sum(weight.numel() for weight in model.parameters()),
            },
            checkpoint,
        )


def _fail_on_one(config: Mapping[str, Any], context: WorkerContext) -> None:
    from torch import distributed

    if context.rank == 1:
        raise ValueError(f"the planted fault of {config['who']}")
    distributed.barrier()


class _Killer(threading.Thread):
    """Kill the first process of this one's Ray instance that shows a title."""

    def __init__(self, title: str) -> None:
        super().__init__(daemon=True)
        self._title = title
        self._is_over = threading.Event()
        self.killed: int | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self.join()

    def run(self) -> None:
        while self.killed is None and not self._is_over.wait(0.02):
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if self.killed is None and self._title in " ".join(process.cmdline()):
                        process.kill()
                        self.killed = process.pid


def test_trains_on_two_workers_though_one_is_killed_while_it_starts(tmp_path: Path) -> None:
    with _Killer("RayTrainWorker") as killer:
        result = _fit(_average_ranks, {"steps": 3}, workers=2, folder=tmp_path, name="average")
    assert killer.killed is not None
    assert result.starts == 1
    assert [entry["step"] for entry in result.history] == [0, 1, 2]
    assert result.metrics == {
        "step": 1,
        "total": 3.0,  # ranks 0 and 1, plus one each
        "threads": 1,
        "parameters": 2,
    }
    assert result.checkpoint is not None
    assert json.loads((result.checkpoint / "weights.json").read_text()) == {"step": 1}
    assert 0 < result.startup_seconds < result.seconds
    # What is left of the fit and of Ray: no process that would wake for nothing.
    titles = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            titles.append(" ".join(process.cmdline()))
    assert any("raylet" in title for title in titles)
    for helper in ("log_monitor", "AutoscalingCoordinator"):
        assert not any(helper in title for title in titles), titles


def test_failure_names_the_worker_the_cause_and_the_place(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        _fit(_fail_on_one, {"who": "rank one"}, workers=2, folder=tmp_path, name="faulty")
    message = str(caught.value)
    assert "training faulty failed: worker 1: ValueError: the planted fault of rank one" in message
    assert "test_cluster.py" in message
    assert "\n" not in message
    assert "the planted fault" in (tmp_path / "faulty" / "failure.txt").read_text()


def test_more_workers_than_can_be_placed_is_told_at_once(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(UserError, match="asks for 5 workers, and at most 4 can be placed"):
        _fit(_average_ranks, {"steps": 1}, workers=5, folder=tmp_path, name="crowd")
    assert time.monotonic() - started < 5


def test_busy_processors_and_a_dead_controller_end_with_a_message(tmp_path: Path) -> None:
    import ray

    held = ray.util.placement_group([{"CPU": 2}])
    assert held.wait(30)
    started = time.monotonic()
    try:
        with pytest.raises(UserError, match="found no free processor in time"):
            _fit(_average_ranks, {"steps": 1}, workers=2, folder=tmp_path, name="waiting")
        assert time.monotonic() - started < 60
        killer = _Killer("TrainController.run")
        with killer, pytest.raises(UserError, match=r"controller ended .*; run it again") as caught:
            _fit(_average_ranks, {"steps": 1}, workers=2, folder=tmp_path, name="headless")
        assert "\n" not in str(caught.value)
        assert held_places().keys() == {held.id.hex()}
    finally:
        ray.util.remove_placement_group(held)


def test_second_call_keeps_the_running_instance() -> None:
    assert ray_instance(ClusterConfig(cpus=1)).cpus == 2


def test_too_few_accelerators_are_told_with_what_helps() -> None:
    wanted = worker_resources(ClusterConfig(gpus_per_worker=1), workers=999)
    assert wanted == {"CPU": 0.25, "GPU": 1}
    with pytest.raises(UserError, match=r"asks for 999 workers.*1 GPU each") as caught:
        check_room(wanted, name="wide", workers=999)
    assert "RANKLAKE_GPUS_PER_WORKER=0" in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"cpus": 0},
        {"cpus_per_worker": 0.0},
        {"cpus_per_worker": 3.0},
        {"gpus_per_worker": 2},
        {"placement_timeout_seconds": 0},
    ],
)
def test_refuses_impossible_configuration(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        ClusterConfig(**fields)  # type: ignore[arg-type]
