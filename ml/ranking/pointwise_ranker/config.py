"""What a point-wise ranker is made of: a history, an interaction and a calibration by name."""

from dataclasses import dataclass

from ml.training.config import TrainConfig

HISTORIES = ("none", "target_attention", "transact", "sasrec")
INTERACTIONS = ("linear", "mlp", "dcn_v2", "dcn_v2_low_rank", "residual_dcn")
CALIBRATIONS = ("none", "isotonic_layer")


@dataclass(frozen=True, kw_only=True, slots=True)
class PointwiseConfig:
    """Name the parts and size them.

    Attributes:
        history: One of `HISTORIES`, how recent events become features.
        interaction: One of `INTERACTIONS`, how features meet; "linear" lets none meet.
        calibration: One of `CALIBRATIONS`, a map of the logits that is trained with them.
        item_width: Width of an item's vector.
        action_width: Width of the vector of an earlier event's outcomes.
        context_width: Width of each context column's vector.
        hidden_widths: Hidden layers of the network beside the crosses.
        dense_gating: Whether a gate follows each hidden layer.
        cross_layers: Layers of the cross networks.
        history_layers: Layers of the history's encoder, if it has one.
        heads: Attention heads of that encoder.
        attention_width: Hidden width of the target attention's activation unit.
        dropout_fraction: Dropout before the heads, and inside the encoder of "sasrec".
    """

    history: str = "none"
    interaction: str = "mlp"
    calibration: str = "none"
    item_width: int = 32
    action_width: int = 8
    context_width: int = 8
    hidden_widths: tuple[int, ...] = (128, 64)
    dense_gating: bool = False
    cross_layers: int = 2
    history_layers: int = 2
    heads: int = 2
    attention_width: int = 32
    dropout_fraction: float = 0.1

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If a part is unknown, a size is not positive or a fraction out of range.
        """
        parts = {"history": HISTORIES, "interaction": INTERACTIONS, "calibration": CALIBRATIONS}
        for name, choices in parts.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {choices}, got {getattr(self, name)!r}")
        sizes = (self.item_width, self.action_width, self.context_width, self.cross_layers)
        if min(*sizes, self.history_layers, self.heads, self.attention_width) < 1:
            raise ValueError("widths, layers and heads must be at least 1")
        if self.interaction != "linear" and not self.hidden_widths:
            raise ValueError("hidden_widths must name a layer, unless the interaction is linear")
        if not 0 <= self.dropout_fraction < 1:
            raise ValueError(f"dropout_fraction must be in [0, 1), got {self.dropout_fraction}")


@dataclass(frozen=True, kw_only=True, slots=True)
class PointBatchConfig:
    """Say how target events are cut into batches.

    Attributes:
        targets: Target events per batch, about; whole requests stay together.
        history_length: Most recent events of earlier requests that an example carries.
        seed: Seed of the order and of the hidden items.
        item_dropout_fraction: Share of item indices that are hidden while training.
    """

    targets: int = 512
    history_length: int = 50
    seed: int = 0
    item_dropout_fraction: float = 0.0

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If a value is out of range.
        """
        if self.targets < 1 or self.history_length < 1:
            raise ValueError("targets and history_length must be at least 1")
        if not 0 <= self.item_dropout_fraction < 1:
            raise ValueError("item_dropout_fraction must be in [0, 1)")


@dataclass(frozen=True, kw_only=True, slots=True)
class PointwiseRecipe:
    """Configure model, batches and training together.

    Attributes:
        model: The named parts.
        batches: Batch size, history length and order.
        training: Epochs and learning rate.
    """

    model: PointwiseConfig
    batches: PointBatchConfig
    training: TrainConfig
