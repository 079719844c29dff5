"""Ray's head is killed while a run trains: the run fails with a message, the next one goes on."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from assets.fitting import Training, data_folder, new_data, run_training, unfinished
from infra.cluster import stop_ray
from infra.json_lines import read_lines
from infra.pinned_tables import PinnedTables
from infra.platform import Platform
from infra.training_log import STARTS_FILE
from ml.training.checkpoint import load_state, newest_checkpoint
from tests.infra.elastic_worker import GO_FILE, prepare, train_slowly

_PATIENCE_SECONDS = 120


@pytest.fixture(autouse=True)
def _no_ray_afterwards() -> Iterator[None]:
    yield
    stop_ray()


@dg.asset
def toy_ranker(platform: Platform) -> dg.MaterializeResult:
    """The steps of the ranker asset up to its registration, on made-up sequences."""
    data = data_folder(platform, "toy_ranker")
    training = Training(
        name="toy_ranker",
        recipe="toy",
        config={},
        data=data,
        tables=PinnedTables(root=data, versions={"sequences": 3}),
        workers=platform.settings().workers,
        code="1",
    )
    begun = unfinished(training)
    if begun is None:
        with new_data(training):
            prepare(data)
    fitted = run_training(platform, begun or training, train_fn=train_slowly)
    return dg.MaterializeResult(
        metadata={
            "epochs": len(fitted.history),
            "steps": fitted.history[-1]["step"],
            "resumed_from_step": 0 if begun is None else begun.resumed_from_step or 0,
        }
    )


def _kill_head(checkpoints: Path) -> None:
    """Kill the server that Ray's head is, once a checkpoint is there."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while newest_checkpoint(checkpoints) is None and time.monotonic() < deadline:
        time.sleep(0.1)
    import ray  # not before the instance runs: Ray reads its settings when it is imported

    node = ray._private.worker._global_node  # pyright: ignore[reportPrivateImportUsage, reportAttributeAccessIssue]
    assert node is not None
    for info in node.all_processes["gcs_server"]:
        os.kill(info.process.pid, signal.SIGKILL)


def test_the_run_fails_with_a_message_and_the_next_one_goes_on(tmp_path: Path) -> None:
    variables = {"RANKLAKE_HOME": str(tmp_path), "RANKLAKE_WORKERS": "1"}
    platform = Platform(variables=variables)
    data = data_folder(platform, "toy_ranker")
    killer = threading.Thread(target=_kill_head, args=(data / "checkpoints",), daemon=True)
    killer.start()
    failed = dg.materialize([toy_ranker], resources={"platform": platform}, raise_on_error=False)
    killer.join()
    assert not failed.success
    failure = failed.failure_data_for_node("toy_ranker")
    assert failure is not None
    error = failure.error
    assert error is not None
    assert error.cause is not None
    assert "training toy_ranker: the Ray head ended while it ran" in error.cause.message
    assert "run it again: it goes on from its newest checkpoint" in error.cause.message

    newest = newest_checkpoint(data / "checkpoints")
    assert newest is not None
    done = load_state(newest)["step"]
    (data / GO_FILE).touch()
    began = time.time()
    again = dg.materialize([toy_ranker], resources={"platform": platform})
    assert again.success
    metadata = again.asset_materializations_for_node("toy_ranker")[0].metadata
    assert metadata["epochs"].value == 3
    assert metadata["resumed_from_step"].value == done
    run = platform.settings().ray_folder / "toy_ranker"
    assert [line["time"] > began for line in read_lines(run / STARTS_FILE)] == [True]
    steps = [load_state(path)["step"] for path in (data / "checkpoints").iterdir()]
    assert 0 < done < min(steps) or done in steps
    assert max(steps) == metadata["steps"].value
