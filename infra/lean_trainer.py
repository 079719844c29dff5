"""Ray Train's trainer without helpers that nobody needs, and with a rule for failures.

Each helper is a process of its own that imports Ray Train and wakes a hundred times a second: a
manager of Ray datasets, although none is passed, a cleaner that gives back the place of workers
whose controller died, which `infra.places` does, and one that asks a cluster for more nodes.
Without them a fit starts a controller, a meeting point of its workers, and the workers.
"""

from collections.abc import Callable
from typing import Any

from ray.train import FailureConfig, Result, RunConfig, ScalingConfig
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.context import TrainRunContext
from ray.train.v2._internal.execution.controller.state import RunningState, TrainControllerState
from ray.train.v2._internal.execution.failure_handling import (
    DefaultFailurePolicy,
    FailureDecision,
)
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.train.v2.api.callback import RayTrainCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError

from infra.process_group import GroupConfig
from infra.worker_failures import is_consequence, is_loss

_NOT_NEEDED = (DatasetsCallback, PlacementGroupCleanerCallback)


class LeanTorchTrainer(DataParallelTrainer):
    """Train as `TorchTrainer` does, with fewer processes; start again after deaths only."""

    def __init__(
        self,
        train_loop: Callable[[], None],
        *,
        scaling_config: ScalingConfig,
        run_config: RunConfig,
        may_grow: bool,
    ) -> None:
        """Take what every worker runs, on what, and where its records go.

        Args:
            train_loop: What every worker runs.
            scaling_config: How many workers, and what each takes.
            run_config: Where records go, and how many failures are outlived.
            may_grow: Whether the cluster could get more nodes when it is asked for them.
        """
        self._may_grow = may_grow
        super().__init__(
            train_loop,
            backend_config=GroupConfig("nccl" if scaling_config.use_gpu else "gloo"),
            scaling_config=scaling_config,
            run_config=run_config,
        )

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        callbacks = super()._create_default_callbacks()
        needed = [callback for callback in callbacks if not isinstance(callback, _NOT_NEEDED)]
        # The first: it must have seen the workers before another callback fails on them.
        return [FailedStart(), *needed]

    def _initialize_and_run_controller(self, **controller: Any) -> Result:
        policy = RestartAfterDeaths(self.run_config.failure_config or FailureConfig())
        controller |= {"failure_policy": policy}
        if not (self._may_grow or self.scaling_config.elasticity_enabled):
            controller |= {"scaling_policy": FixedNodes(self.scaling_config)}
        return super()._initialize_and_run_controller(**controller)


class FixedNodes(FixedScalingPolicy):
    """Start a fixed number of workers on the nodes that there are, and ask for no others."""

    def after_controller_start(self, train_run_context: TrainRunContext) -> None:
        """Do without the process that would ask."""

    def _maybe_send_resource_request(self) -> None:
        """Ask for nothing."""


class RestartAfterDeaths(DefaultFailurePolicy):
    """Start the workers again when one died; an error of what they run would only come again.

    A death counts against `max_failures` whenever it comes, while the workers start as well: Ray
    Train charges that to its controller. `controller_failure_limit` is left to placements that
    came too late.
    """

    def make_decision(self, training_failed_error: TrainingFailedError) -> FailureDecision:
        """Return what to do about a failure."""
        if isinstance(training_failed_error, ControllerError):
            return super().make_decision(_as_death(training_failed_error))
        failures = getattr(training_failed_error, "worker_failures", {})
        if not is_loss(failures.values()):
            return FailureDecision.RAISE
        return super().make_decision(training_failed_error)


def _as_death(error: ControllerError) -> TrainingFailedError:
    """Return a controller's error as the workers' own if it came of a death while they started."""
    failure = error.controller_failure
    if isinstance(failure, WorkerGroupStartupFailedError):
        failure = failure.__cause__ if isinstance(failure.__cause__, Exception) else failure
    elif not is_consequence(failure):
        return error
    # Which of them it was is not known.
    return WorkerGroupError(str(error), {0: failure})


class FailedStart(WorkerGroupCallback, ControllerCallback):
    """Give back the place of workers that failed while they started; Ray Train forgets it.

    The next ones would not fit beside it.
    """

    def __init__(self) -> None:
        """Know of no workers."""
        self._starting: WorkerGroup | None = None

    def after_worker_group_start(self, worker_group: WorkerGroup) -> None:
        """Remember workers that have a place, but may yet fail to join their process group."""
        self._starting = worker_group

    def after_controller_state_update(
        self, previous_state: TrainControllerState, current_state: TrainControllerState
    ) -> None:
        """Leave workers that run to the controller, and end those that do not come to it."""
        group, self._starting = self._starting, None
        has_failed = not isinstance(current_state, RunningState)
        if group is not None and has_failed and group.has_started():
            group.abort()
