"""A cluster of two nodes: attached to, trained on, with one node lost and another one gained."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from infra.cluster import ClusterConfig, ray_instance, stop_ray
from infra.errors import UserError
from infra.json_lines import read_lines
from infra.ray_training import FitPlan, FitResult, fit
from infra.training_log import STARTS_FILE
from infra.worker_size import worker_resources
from ml.training.checkpoint import newest_checkpoint
from tests.infra.elastic_worker import GO_FILE, STEP_BATCHES, prepare, train_here, train_slowly

_PATIENCE_SECONDS = 240


@pytest.fixture
def two_nodes() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        yield cluster
    finally:
        stop_ray()
        cluster.shutdown()


def _wait(condition: Callable[[], bool], *, for_what: str) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited too long for {for_what}"
        time.sleep(0.2)


def _workers(run: Path) -> list[int]:
    return [line["workers"] for line in read_lines(run / STARTS_FILE)]


def _new_checkpoint(data: Path, *, after: Path | None) -> bool:
    newest = newest_checkpoint(data / "checkpoints")
    return newest is not None and newest != after


class _Fit(threading.Thread):
    """A training in the background."""

    def __init__(self, data: Path, plan: FitPlan) -> None:
        super().__init__(daemon=True)
        self._data, self._plan = data, plan
        self.result: FitResult | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.result = fit(train_slowly, {"data": str(self._data)}, self._plan)
        except BaseException as error:
            self.error = error


def test_goes_on_with_fewer_workers_and_regains_them(two_nodes: Any, tmp_path: Path) -> None:
    second = two_nodes.add_node(num_cpus=2)
    cluster = ray_instance(ClusterConfig(cpus=1, address=two_nodes.address))
    assert cluster.cpus == 4, "the cluster's processors are counted, not this machine's"
    assert worker_resources(cluster, workers=STEP_BATCHES) == {"CPU": 2.0}, "a node's share"
    data, run = tmp_path / "data", tmp_path / "elastic"
    prepare(data)
    shutil.copytree(data, tmp_path / "undisturbed")
    plan = FitPlan(
        name="elastic",
        folder=tmp_path,
        workers=STEP_BATCHES,
        least_workers=1,
        resize_seconds=2.0,
    )
    training = _Fit(data, plan)
    training.start()

    def reached(count: int) -> bool:
        assert training.is_alive(), f"ended early: {training.error}"
        return len(_workers(run)) >= count

    _wait(lambda: reached(1) and _new_checkpoint(data, after=None), for_what="a checkpoint of two")
    two_nodes.remove_node(second, allow_graceful=False)
    _wait(lambda: reached(2), for_what="one worker to go on alone")
    last = newest_checkpoint(data / "checkpoints")
    _wait(lambda: reached(2) and _new_checkpoint(data, after=last), for_what="a checkpoint of one")
    two_nodes.add_node(num_cpus=2)
    _wait(lambda: reached(3), for_what="the second worker to come back")
    (data / GO_FILE).touch()
    training.join(_PATIENCE_SECONDS)

    assert training.error is None
    assert len({file.read_text() for file in data.glob("node-of-*")}) == 2, "one on each node"
    assert training.result is not None
    assert _workers(run) == [2, 1, 2]
    assert training.result.starts == 3
    assert [row["epoch"] for row in training.result.history] == [0, 1, 2]
    undisturbed = train_here(tmp_path / "undisturbed")
    got = load_file(data / "checkpoints" / undisturbed.name / "model.safetensors")
    for name, expected in load_file(undisturbed / "model.safetensors").items():
        torch.testing.assert_close(got[name], expected, rtol=1e-3, atol=1e-4, msg=name)


def test_no_cluster_at_the_address_is_told_at_once() -> None:
    started = time.monotonic()
    with pytest.raises(UserError, match=r"no Ray cluster answers at 127\.0\.0\.1:9"):
        ray_instance(ClusterConfig(address="127.0.0.1:9"))
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("address", ["somewhere", "host:", ":6379"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(UserError, match="write it as host:port"):
        ray_instance(ClusterConfig(address=address))
