"""What is told from how the workers of a training failed: try again, or end it and say why."""

from collections.abc import Callable
from typing import Any

import pytest

from infra.worker_failures import root_cause


class DistNetworkError(RuntimeError):
    """As torch's, which the controller must decide on without torch."""


def _decisions(failure: Any, *, restarts: int = 3, late_placements: int = 0) -> list[str]:
    """Return what is decided about a failure that comes again until it ends the training."""
    from ray.train import FailureConfig

    from infra.lean_trainer import RestartAfterDeaths

    config = FailureConfig(max_failures=restarts, controller_failure_limit=late_placements)
    policy = RestartAfterDeaths(config)
    made: list[str] = []
    while "RAISE" not in made and len(made) < 9:
        made.append(policy.make_decision(failure).value)
    return made


def _failed(*failures: Exception) -> Exception:
    from ray.train.v2.api.exceptions import WorkerGroupError

    return WorkerGroupError("as told", dict(enumerate(failures)))


def _asked(met: Exception) -> Exception:
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

    return WorkerHealthCheckFailedError("asked", met)


def _died() -> Exception:
    from ray.exceptions import ActorDiedError

    return _asked(ActorDiedError())


def _of_controller(failure: Exception) -> Exception:
    from ray.train.v2.api.exceptions import ControllerError

    return ControllerError(failure)


def _not_started() -> Exception:
    from ray.exceptions import ActorDiedError
    from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError

    failure = WorkerGroupStartupFailedError("one failed to initialize")
    failure.__cause__ = ActorDiedError()
    return _of_controller(failure)


def _not_launched() -> Exception:
    from ray.exceptions import ActorDiedError

    return _of_controller(ActorDiedError())


def _not_joined(cause: Exception) -> Exception:
    from ray.exceptions import RayTaskError

    return _of_controller(RayTaskError("_join", f"Traceback ...\n{cause!r}", cause))


@pytest.mark.parametrize(
    "beside",
    [
        DistNetworkError("failed to recv, got 0 bytes"),
        RuntimeError("a message that nobody has seen before"),
    ],
)
def test_a_dead_worker_explains_whatever_the_others_say(beside: Exception) -> None:
    assert _decisions(_failed(beside, _died()), restarts=1) == ["RETRY", "RAISE"]


@pytest.mark.parametrize(
    "message",
    [
        "[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]",
        "Failed to recv, got 0 bytes. Connection was likely closed.",
        "NCCL error: ncclRemoteError: A call failed possibly due to a network error",
    ],
)
def test_a_lost_connection_is_tried_again_though_no_death_is_known_yet(message: str) -> None:
    assert _decisions(_failed(RuntimeError(message)), restarts=1) == ["RETRY", "RAISE"]


@pytest.mark.parametrize(
    "failure",
    [
        RuntimeError("[gloo/transport/tcp/pair.cc:459] op.preamble.length <= op.nbytes. 8 vs 4"),
        RuntimeError("ProcessGroupGloo does not support reduce_scatter"),
        RuntimeError("NCCL error: ncclInvalidUsage: Duplicate GPU detected"),
        ValueError("a fault of the function"),
    ],
)
def test_an_error_that_would_come_again_ends_the_training(failure: Exception) -> None:
    assert _decisions(_failed(failure)) == ["RAISE"]
    assert _decisions(_failed(RuntimeError("Connection closed by peer"), failure)) == ["RAISE"]


def test_an_answer_that_cannot_be_sent_is_no_death() -> None:
    assert _decisions(_failed(_asked(TypeError("cannot pickle 'lock'")))) == ["RAISE"]


@pytest.mark.parametrize(
    "death",
    [
        _not_started,
        _not_launched,
        lambda: _not_joined(DistNetworkError("failed to recv, got 0 bytes")),
        lambda: _failed(_died()),
    ],
)
def test_a_death_at_any_time_counts_against_the_restarts(death: Callable[[], Exception]) -> None:
    assert _decisions(death(), restarts=2) == ["RETRY", "RETRY", "RAISE"]


def test_a_fault_in_the_join_ends_the_training() -> None:
    assert _decisions(_not_joined(ValueError("no such backend"))) == ["RAISE"]


def test_a_late_placement_is_no_death() -> None:
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

    late = _of_controller(WorkerGroupStartupTimeoutError(2))
    assert _decisions(late) == ["RAISE"]
    assert _decisions(late, restarts=0, late_placements=-1) == ["RETRY"] * 9


def test_the_cause_is_the_dead_worker_else_the_one_with_an_error_of_its_own() -> None:
    lost, fault = RuntimeError("Connection closed by peer"), ValueError("a fault")
    assert root_cause(_failed(lost, fault)) == "worker 1: ValueError: a fault"
    assert root_cause(_failed(lost, _died())).startswith("worker 1: WorkerHealthCheckFailedError")
