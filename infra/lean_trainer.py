"""Ray Train's TorchTrainer without the helpers that a local training has no use for.

Each helper is a process of its own that imports Ray Train: a manager of Ray datasets, although
none is passed, and a cleaner that frees a dead controller's placement group, which this process's
`ray.shutdown` does. Without them a fit starts three processes and its workers instead of five.
"""

from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.api.callback import RayTrainCallback

_NOT_NEEDED = (DatasetsCallback, PlacementGroupCleanerCallback)


class LeanTorchTrainer(TorchTrainer):
    """Train as `TorchTrainer` does, with fewer helper processes."""

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        callbacks = super()._create_default_callbacks()
        return [callback for callback in callbacks if not isinstance(callback, _NOT_NEEDED)]
