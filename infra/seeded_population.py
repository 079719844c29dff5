"""Ray Tune's population-based training, with a course that its seed decides.

Ray Tune draws whom a member follows, and with which values, from the global generators, whose
state depends on what else the process has done. Here they are seeded for each draw by the search,
the member and the time, and given back after it.
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

    def _checkpoint_or_exploit(self, trial: Trial, *arguments: Any) -> None:
        time = int(self._trial_state[trial].last_train_time)
        with _seeded(self._seed, trial_number(trial.trial_id), time):
            super()._checkpoint_or_exploit(trial, *arguments)


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
