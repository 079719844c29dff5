"""Ways to train that any recipe may take, as changes of its training."""

from dataclasses import replace

from ml.training.config import TrainConfig
from ml.training.gain_ratio import AdaScaleConfig
from ml.training.hdet.config import HdetConfig


def equal_replicas(training: TrainConfig) -> TrainConfig:
    """Return plain data parallelism: replicas with one learning rate that nothing steers."""
    hdet = replace(
        training.hdet,
        spread_fraction=0.0,
        noise_fraction=0.0,
        auto_lr=False,
        gradient_sync="shared",
        diverse=HdetConfig().diverse,
        starts=(),
    )
    return replace(training, hdet=hdet)


def with_adascale(training: TrainConfig, *, learning_rate: float) -> TrainConfig:
    """Return SGD with momentum at the scale of all workers' batches, its rate by AdaScale.

    A step at the peak shrinks weights by learning rate times decay, and the rates of AdamW and of
    SGD are no match: the decay becomes the one that leaves this product as it was.

    Args:
        training: How the recipe trains otherwise; its epochs become those of single batches.
        learning_rate: Peak of the rate for steps of a single batch.
    """
    return replace(
        equal_replicas(training),
        optimizer="sgd",
        learning_rate=learning_rate,
        weight_decay=training.learning_rate * training.weight_decay / learning_rate,
        adascale=AdaScaleConfig(),
    )


def with_full_sharding(training: TrainConfig) -> TrainConfig:
    """Return a training whose weights, gradients and moments are split over the workers."""
    return replace(equal_replicas(training), sharding="full")


def with_local_gradients(training: TrainConfig) -> TrainConfig:
    """Return HDET whose replicas follow their own gradients and average moments as well."""
    hdet = replace(training.hdet, gradient_sync="local", moments="average")
    return replace(training, hdet=hdet)
