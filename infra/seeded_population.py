"""Ray Tune's population-based training, with a course that its seed decides.

Ray Tune draws whom a member follows, and with which values, from the global generators, whose
state depends on what else the process has done. Here they are seeded for each draw by the search,
the member and the time, and given back after it. A member that is lost for good, which Ray Tune's
scheduler would let the others wait for without end, is left behind.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from ray.tune.experiment import Trial
from ray.tune.schedulers import PopulationBasedTraining

from infra.search_trial import trial_number


class SeededPopulation(PopulationBasedTraining):
    """Do as `PopulationBasedTraining` does, the same for the same seed if `synch` is set."""

    def __init__(self, *, seed: int, **arguments: Any) -> None:
        """Keep the seed.

        Args:
            seed: Not below 0.
            arguments: Those of `PopulationBasedTraining`.
        """
        super().__init__(**arguments)
        self._seed = seed

    def _checkpoint_or_exploit(
        self,
        trial: Trial,
        tune_controller: Any,
        upper_quantile: list[Trial],
        lower_quantile: list[Trial],
    ) -> None:
        time = int(self._trial_state[trial].last_train_time)
        with _seeded(self._seed, trial_number(trial.trial_id), time):
            super()._checkpoint_or_exploit(trial, tune_controller, upper_quantile, lower_quantile)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Return who runs next; members that wait for one that is lost go on without it."""
        waiting = [trial for trial in tune_controller.get_trials() if not trial.is_finished()]
        if waiting and all(self._is_waiting(trial) for trial in waiting):
            self._next_perturbation_sync += self._perturbation_interval
        for trial in tune_controller.get_trials():
            if trial.status == Trial.ERROR:  # nobody shall wait for it at the next meeting
                self._trial_state[trial].last_train_time = int(self._next_perturbation_sync)
        return super().choose_trial_to_run(tune_controller)

    def _is_waiting(self, trial: Trial) -> bool:
        """Return whether a member has come to where the others are awaited, and stands there."""
        time = self._trial_state[trial].last_train_time
        return trial.status == Trial.PAUSED and time >= self._next_perturbation_sync


@contextmanager
def _seeded(*entropy: int) -> Iterator[None]:
    states = random.getstate(), np.random.get_state()
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
