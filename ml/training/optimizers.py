"""The optimiser of a configuration."""

from torch import nn
from torch.optim import AdamW, Optimizer

from ml.training.config import TrainConfig
from ml.training.decoupled_sgd import DecoupledSGD
from ml.training.parameters import parameter_groups
from ml.training.tables.optimizer import TableOptimizer
from ml.training.tables.rowwise_adagrad import RowwiseAdagrad
from ml.training.tables.sparse_tables import Tables


def build_optimizer(model: nn.Module, config: TrainConfig) -> Optimizer:
    """Return the optimiser that a configuration names, with the house's parameter groups.

    Tables of sparse gradients form a further group, named table, of an optimiser of their own.

    Args:
        model: On its device; frozen parameters are left out.
        config: Names, learning rates, decay and momentum.

    Raises:
        ValueError: If the model has tables of sparse gradients and no optimiser for them is
            configured, or the other way round.
    """
    found = Tables.of(model)
    tables = found.weights
    wants = config.table_optimizer == "rowwise_adagrad"
    if tables and not wants:
        raise ValueError(
            f"{config.optimizer} takes no sparse gradients, and the model has a table of them; set"
            " table_optimizer='rowwise_adagrad', or the model's item_table='replicated'"
        )
    if wants and not tables:
        raise ValueError(
            "table_optimizer='rowwise_adagrad' is for trained tables of sparse gradients, and the"
            " model has none; set its item_table to 'sparse' or 'sharded', or"
            " table_optimizer='shared'"
        )
    dense = _dense(model, config, tables)
    if not tables:
        # What writes checkpoints asks it for the accumulators of sharded tables.
        return TableOptimizer(dense, None) if found.sharded else dense
    group = {"name": "table", "params": tables}
    return TableOptimizer(dense, RowwiseAdagrad([group], lr=config.table_learning_rate))


def _dense(model: nn.Module, config: TrainConfig, tables: list[nn.Parameter]) -> Optimizer:
    """Return the optimiser of what is no table."""
    groups = parameter_groups(model, weight_decay=config.weight_decay, without=tables)
    if config.optimizer == "sgd":
        return DecoupledSGD(groups, lr=config.learning_rate, momentum=config.momentum, fused=True)
    return AdamW(groups, lr=config.learning_rate, fused=True)
