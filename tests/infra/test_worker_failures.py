"""What is told from how the workers of a training failed: try again, or end it and say why."""

import pytest
from ray.exceptions import ActorDiedError, RayTaskError
from ray.train import FailureConfig
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupFailedError,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
)
from ray.train.v2._internal.execution.failure_handling import FailureDecision
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from infra.lean_trainer import RestartAfterDeaths
from infra.worker_failures import root_cause

RETRY, RAISE = FailureDecision.RETRY, FailureDecision.RAISE


class DistNetworkError(RuntimeError):
    """As torch's, which the controller must decide on without torch."""


def _policy(restarts: int = 3, *, late_placements: int = 0) -> RestartAfterDeaths:
    return RestartAfterDeaths(
        FailureConfig(max_failures=restarts, controller_failure_limit=late_placements)
    )


def _failed(*failures: Exception) -> WorkerGroupError:
    return WorkerGroupError("as told", dict(enumerate(failures)))


def _died() -> WorkerHealthCheckFailedError:
    return WorkerHealthCheckFailedError("asked", ActorDiedError())


def _not_started() -> ControllerError:
    failure = WorkerGroupStartupFailedError("one failed to initialize")
    failure.__cause__ = ActorDiedError()
    return ControllerError(failure)


def _not_joined(cause: Exception) -> ControllerError:
    return ControllerError(RayTaskError("_join", f"Traceback ...\n{cause!r}", cause))


@pytest.mark.parametrize(
    "beside",
    [
        DistNetworkError("failed to recv, got 0 bytes"),
        RuntimeError("a message that nobody has seen before"),
    ],
)
def test_a_dead_worker_explains_whatever_the_others_say(beside: Exception) -> None:
    assert _policy().make_decision(_failed(beside, _died())) is RETRY


@pytest.mark.parametrize(
    ("failure", "decision"),
    [
        (RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer"), RETRY),
        (RuntimeError("Failed to recv, got 0 bytes. Connection was likely closed."), RETRY),
        (RuntimeError("NCCL error: ncclRemoteError: A call failed"), RETRY),
        (RuntimeError("[gloo/pair.cc:459] op.preamble.length <= op.nbytes. 8 vs 4"), RAISE),
        (RuntimeError("ProcessGroupGloo does not support reduce_scatter"), RAISE),
        (RuntimeError("NCCL error: ncclInvalidUsage: Duplicate GPU detected"), RAISE),
        (WorkerHealthCheckFailedError("asked", TypeError("cannot pickle 'lock'")), RAISE),
        (ValueError("a fault of the function"), RAISE),
    ],
)
def test_without_a_dead_worker_only_a_lost_connection_is_tried_again(
    failure: Exception, decision: FailureDecision
) -> None:
    assert _policy().make_decision(_failed(failure)) is decision


def test_an_error_of_one_ends_the_training_though_another_lost_it() -> None:
    lost = RuntimeError("Connection closed by peer")
    assert _policy().make_decision(_failed(lost, ValueError("a fault"))) is RAISE


@pytest.mark.parametrize(
    "death",
    [
        _not_started(),
        ControllerError(ActorDiedError()),
        _not_joined(DistNetworkError("failed to recv, got 0 bytes")),
        _failed(_died()),
    ],
)
def test_a_death_at_any_time_counts_against_the_restarts(death: Exception) -> None:
    policy = _policy(restarts=2)
    assert [policy.make_decision(death) for _ in range(3)] == [RETRY, RETRY, RAISE]  # type: ignore[arg-type]


def test_a_fault_in_the_join_ends_the_training() -> None:
    assert _policy().make_decision(_not_joined(ValueError("bad backend"))) is RAISE


def test_a_late_placement_is_no_death() -> None:
    late = ControllerError(WorkerGroupStartupTimeoutError(2))
    assert _policy().make_decision(late) is RAISE
    patient = _policy(restarts=0, late_placements=-1)
    assert [patient.make_decision(late) for _ in range(9)] == [RETRY] * 9


def test_the_cause_is_the_dead_worker_else_the_one_with_an_error_of_its_own() -> None:
    lost, fault = RuntimeError("Connection closed by peer"), ValueError("a fault")
    assert root_cause(_failed(lost, fault)) == "worker 1: ValueError: a fault"
    assert root_cause(_failed(lost, _died())).startswith("worker 1: WorkerHealthCheckFailedError")
