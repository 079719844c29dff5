"""Where trials run: on an accelerator if workers have one, and nowhere where nothing is free."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from infra import search_run
from infra.cluster import ClusterConfig, ray_instance, stop_ray
from infra.errors import UserError
from infra.search import SearchConfig, search
from tests.infra.searched_folders import searched_ranker


@pytest.fixture
def node_with_accelerator() -> Iterator[Any]:
    """Start a node that says it has an accelerator, whether it has or not."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 1})
    try:
        yield cluster
    finally:
        stop_ray()
        cluster.shutdown()


def _config(tmp_path: Path) -> SearchConfig:
    data = searched_ranker(tmp_path / "data", epochs=1)
    return SearchConfig(model="ranker", data=data, folder=tmp_path / "trials", trials=1)


def test_a_trial_trains_on_the_accelerator_of_a_worker(
    node_with_accelerator: Any, tmp_path: Path
) -> None:
    ray_instance(ClusterConfig(address=node_with_accelerator.address, gpus_per_worker=1))
    if torch.cuda.is_available():
        assert [trial.failure for trial in search(_config(tmp_path)).trials] == [None]
        return
    with pytest.raises(UserError, match=r"all 1 trials failed, the first with .*(CUDA|NVIDIA)"):
        search(_config(tmp_path))


def test_a_search_does_not_wait_for_ever_for_a_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr(search_run, "_GRACE_SECONDS", 2.0)
    try:
        ray_instance(ClusterConfig(cpus=1, placement_timeout_seconds=1.0))
        busy = ray.remote(num_cpus=1)(_occupy).remote(str(tmp_path / "begun"))
        while not (tmp_path / "begun").exists():
            time.sleep(0.05)
        with pytest.raises(UserError, match="no trial has begun after 3 s; a trial takes 1 CPU"):
            search(_config(tmp_path))
        del busy
    finally:
        stop_ray()


def _occupy(begun: str) -> None:
    Path(begun).touch()
    time.sleep(600)
