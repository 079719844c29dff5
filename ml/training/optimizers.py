"""The optimiser of a configuration."""

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from ml.training.config import TrainConfig
from ml.training.parameters import parameter_groups


def build_optimizer(model: nn.Module, config: TrainConfig) -> Optimizer:
    """Return the optimiser that a configuration names, with the house's parameter groups.

    Args:
        model: On its device; frozen parameters are left out.
        config: Name, learning rate, decay and momentum.
    """
    groups = parameter_groups(model, weight_decay=config.weight_decay)
    if config.optimizer == "sgd":
        return SGD(groups, lr=config.learning_rate, momentum=config.momentum, fused=True)
    return AdamW(groups, lr=config.learning_rate, fused=True)
