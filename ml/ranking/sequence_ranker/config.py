"""What a sequence ranker is made of: each part by its name, and the sizes."""

from dataclasses import dataclass

SCHEMES = ("attn_mvp", "attn_mvp_without_lfa", "attn_lfa", "interleaved", "no_action")
ROTATIONS = ("ordinal", "time_offset", "siren", "none")
HEADS = ("linear", "mlp", "mmoe", "parallel_dcn", "mmoe_dcn")
OUTCOMES = ("with_item", "alone")
ITEM_TABLES = ("replicated", "sparse", "sharded")
CALIBRATIONS = ("none", "isotonic_layer")


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceRankerConfig:
    """Name the parts of a sequence ranker and size them.

    Attributes:
        scheme: How outcomes of past events reach later ones, one of `SCHEMES`.
        outcomes: Whether an outcome's vector knows the item it came of, one of `OUTCOMES`. The
            published AttnMVP has it alone; with the item, a value can say what was clicked.
        rotation: How queries and keys are turned, one of `ROTATIONS`.
        rotation_branches: Branches of SIREN-RoPE's angle nets: "both", "sin" or "dnn".
        head: What predicts the actions from the streams, one of `HEADS`.
        calibration: What the logits pass at last, one of `CALIBRATIONS`.
        width: Width of the streams.
        heads: Attention heads; divides the width into even parts.
        layers: Transformer blocks.
        action_weight: Weight of the outcomes in the values (lambda of AttnMVP).
        residual_scale: Factor of the residual branches.
        head_width: Hidden width of the prediction head.
        dropout_fraction: Dropout before the head's output.
        uses_text_embedding: Whether the item table's text embedding is an input.
        item_table: Where the vectors of item ids are, one of `ITEM_TABLES`: in the one table of all
            columns; in a table of sparse gradients on every replica; or cut by rows over the
            replicas, for a catalogue that does not fit one.
        late_numbers: Whether the numeric features join at the head (late fusion).
        wide_crosses: Most crosses that the wide part remembers; 0 for no such part.
        hides_session: Whether events of an event's own session are hidden from it.
        position_offsets: Whether the position is an offset of each action's logit, and no feature.
        serving_position: Position that candidates are given if it is an offset; from 1.
    """

    scheme: str = "attn_mvp"
    outcomes: str = "with_item"
    rotation: str = "ordinal"
    rotation_branches: str = "both"
    head: str = "mlp"
    calibration: str = "none"
    width: int = 64
    heads: int = 2
    layers: int = 2
    action_weight: float = 1.0
    residual_scale: float = 1.0
    head_width: int = 128
    dropout_fraction: float = 0.0
    uses_text_embedding: bool = False
    item_table: str = "replicated"
    late_numbers: bool = False
    wide_crosses: int = 0
    hides_session: bool = False
    position_offsets: bool = False
    serving_position: int = 5

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If a part is unknown, the widths do not fit, or a number is out of range.
        """
        named = {
            "scheme": SCHEMES,
            "outcomes": OUTCOMES,
            "rotation": ROTATIONS,
            "rotation_branches": ("both", "sin", "dnn"),
            "head": HEADS,
            "calibration": CALIBRATIONS,
            "item_table": ITEM_TABLES,
        }
        for field, known in named.items():
            if getattr(self, field) not in known:
                raise ValueError(f"no {field} {getattr(self, field)!r}; choose one of {known}")
        if min(self.width, self.heads, self.layers, self.head_width) < 1:
            raise ValueError("width, heads, layers and head_width must be at least 1")
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} must be a multiple of 2 x {self.heads} heads")
        if not 0 <= self.dropout_fraction < 1:
            raise ValueError(f"dropout_fraction must be in [0, 1), got {self.dropout_fraction}")
        if self.serving_position < 1:
            raise ValueError(f"serving_position counts from 1, got {self.serving_position}")

    @property
    def pools(self) -> bool:
        """Return whether past outcomes are pooled once more after the blocks (late fusion)."""
        return self.scheme in ("attn_mvp", "attn_lfa")
