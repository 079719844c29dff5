"""Ray Train's trainer without helpers that nobody needs, and with a rule for failures.

Each helper is a process of its own that imports Ray Train: a manager of Ray datasets, although
none is passed, and a cleaner that frees a dead controller's placement group, which this process's
`ray.shutdown` does. Without them a fit starts three processes and its workers instead of five.
"""

from collections.abc import Callable
from typing import Any

from ray.train import FailureConfig, Result, RunConfig, ScalingConfig
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.failure_handling import (
    DefaultFailurePolicy,
    FailureDecision,
)
from ray.train.v2.api.callback import RayTrainCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.train.v2.api.exceptions import TrainingFailedError

from infra.process_group import GroupConfig
from infra.training_log import is_consequence

_NOT_NEEDED = (DatasetsCallback, PlacementGroupCleanerCallback)


class LeanTorchTrainer(DataParallelTrainer):
    """Train as `TorchTrainer` does, with fewer processes; start again after deaths only."""

    def __init__(
        self,
        train_loop: Callable[[], None],
        *,
        scaling_config: ScalingConfig,
        run_config: RunConfig,
    ) -> None:
        """Take what every worker runs, on what, and where its records go."""
        super().__init__(
            train_loop,
            backend_config=GroupConfig("nccl" if scaling_config.use_gpu else "gloo"),
            scaling_config=scaling_config,
            run_config=run_config,
        )

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        callbacks = super()._create_default_callbacks()
        return [callback for callback in callbacks if not isinstance(callback, _NOT_NEEDED)]

    def _initialize_and_run_controller(self, **controller: Any) -> Result:
        policy = RestartAfterDeaths(self.run_config.failure_config or FailureConfig())
        return super()._initialize_and_run_controller(**controller | {"failure_policy": policy})


class RestartAfterDeaths(DefaultFailurePolicy):
    """Start the workers again when one died; an error of what they run would only come again."""

    def make_decision(self, training_failed_error: TrainingFailedError) -> FailureDecision:
        """Return what to do about a failure."""
        failures = getattr(training_failed_error, "worker_failures", {})
        if any(not is_consequence(failure) for failure in failures.values()):
            return FailureDecision.RAISE
        return super().make_decision(training_failed_error)
