"""What a training may be told: how long, how fast, how replicas differ, and what ends it."""

from dataclasses import dataclass, field

from ml.training.gain_ratio import AdaScaleConfig
from ml.training.guard import GuardConfig
from ml.training.hdet.config import HdetConfig

OPTIMIZERS = ("adamw", "sgd")
SHARDING = ("none", "full")
TABLE_OPTIMIZERS = ("shared", "rowwise_adagrad")


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointConfig:
    """Say when a training can be gone on with, and which checkpoints stay.

    Attributes:
        steps: Steps between checkpoints within an epoch, at which the replicas meet; None for
            one at the end of each epoch only.
        keep_last: Newest checkpoints that stay.
        keep_best: Checkpoints of the best epochs that stay.
    """

    steps: int | None = None
    keep_last: int = 1
    keep_best: int = 1

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If a value is out of range.
        """
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"checkpoint steps must be at least 1 or None, got {self.steps}")
        if min(self.keep_last, self.keep_best) < 1:
            raise ValueError("keep_last and keep_best must be at least 1: both are read again")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Say how long and how fast to train.

    Attributes:
        epochs: Epochs at most; the learning rate's cycle spans them.
        max_steps: Optimiser steps at most, None for all.
        learning_rate: Peak learning rate.
        weight_decay: Decoupled decay of matrices; a step shrinks them by it times the rate.
        warmup_fraction: Share of the steps in which the learning rate rises.
        div_factor: Peak over first learning rate.
        final_div_factor: First over last learning rate.
        clip_norm: Largest norm of the averaged gradient.
        patience: Evaluations without improvement before stopping.
        monitor: Validation metric to minimise.
        precision: "auto", "float32" or "bfloat16".
        seed: Seed of dropout.
        optimizer: "adamw", or "sgd" with momentum.
        momentum: Momentum of "sgd".
        prefetch: Steps whose batches are prepared ahead on a thread; 0 prepares them in between.
        sharding: "none", or "full" to split weights, gradients and moments over the workers, for
            a model that does not fit one.
        table_optimizer: "shared" for that of all parameters, with dense gradients; or
            "rowwise_adagrad" for embedding tables of sparse gradients, replicated or sharded.
        table_learning_rate: Peak learning rate of "rowwise_adagrad", on the same cycle; each row is
            rescaled by its own history, so it is no multiple of `learning_rate`.
        hdet: Replicas' learning rates and their controller.
        adascale: Scale the learning rate of "sgd" by what a step of several batches gains over
            one of a single batch; `epochs` then count steps of single batches. None for not.
        checkpoints: When they are written, and which stay.
        guard: What is done about losses that are not finite or that explode.
    """

    epochs: int = 8
    max_steps: int | None = None
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    warmup_fraction: float = 0.1
    div_factor: float = 25.0
    final_div_factor: float = 40.0
    clip_norm: float = 1.0
    patience: int = 2
    monitor: str = "validation_ne"
    precision: str = "auto"
    seed: int = 0
    optimizer: str = "adamw"
    momentum: float = 0.9
    prefetch: int = 2
    sharding: str = "none"
    table_optimizer: str = "shared"
    table_learning_rate: float = 0.005
    hdet: HdetConfig = field(default_factory=HdetConfig)
    adascale: AdaScaleConfig | None = None
    checkpoints: CheckpointConfig = field(default_factory=CheckpointConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If a value is out of range.
        """
        if self.epochs < 1 or (self.max_steps is not None and self.max_steps < 1):
            raise ValueError("epochs and max_steps must be at least 1")
        if min(self.learning_rate, self.clip_norm) <= 0 or self.weight_decay < 0:
            raise ValueError(
                "learning_rate and clip_norm must be positive, weight_decay not below 0"
            )
        if not 0 <= self.momentum < 1 or self.prefetch < 0:
            raise ValueError("momentum must be in [0, 1), prefetch at least 0")
        choices = {
            "optimizer": OPTIMIZERS,
            "sharding": SHARDING,
            "table_optimizer": TABLE_OPTIMIZERS,
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is one of {known}, not {getattr(self, name)!r}")
        self._check_tables()
        if self.sharding == "full":
            self._check_sharding()
        if self.adascale is not None:
            self._check_adascale()

    def _check_sharding(self) -> None:
        """Refuse what reads or averages whole weights of a replica of its own.

        Raises:
            ValueError: If HDET or AdaScale is on.
        """
        if self.hdet.is_on:
            raise ValueError(
                "hdet averages replicas that differ, but sharded workers hold parts of one model; "
                "set hdet=HdetConfig(spread_fraction=0, auto_lr=False), or sharding='none'"
            )
        if self.adascale is not None:
            raise ValueError(
                "adascale compares each worker's own gradient with the mean, and sharded workers "
                "see parts of the sum; set adascale=None, or sharding='none'"
            )

    def _check_tables(self) -> None:
        """Refuse what tables of their own optimiser cannot be trained with.

        Raises:
            ValueError: If the rate is not positive, the model is split, or AdaScale is on.
        """
        if self.table_optimizer == "shared":
            return
        if self.table_learning_rate <= 0:
            raise ValueError(f"table_learning_rate must be above 0, got {self.table_learning_rate}")
        if self.sharding == "full":
            raise ValueError(
                "sharding='full' splits every parameter and reduces dense gradients only; set "
                "sharding='none' for a model with sparse or sharded tables, or "
                "table_optimizer='shared' and the model's item_table='replicated'"
            )
        if self.adascale is not None:
            raise ValueError(
                "adascale scales the steps of SGD, not of row-wise Adagrad; set "
                "table_optimizer='shared' and the model's item_table='replicated', or adascale=None"
            )

    def _check_adascale(self) -> None:
        """Refuse what AdaScale is not defined for.

        Raises:
            ValueError: If the optimiser rescales gradients, or HDET is on.
        """
        if self.optimizer != "sgd":
            raise ValueError(
                f"adascale scales the steps of SGD, not of {self.optimizer}, which rescales the "
                "gradient itself; set optimizer='sgd', or adascale=None"
            )
        if self.hdet.is_on:
            raise ValueError(
                "adascale and hdet cannot both drive the learning rate; set "
                "hdet=HdetConfig(spread_fraction=0, auto_lr=False), or adascale=None"
            )
