"""How many floating-point operations a training step of a sequence ranker cannot do without.

Counted per event, forward, a multiplication with its addition as two; D width, E head width, L
layers, S events per sequence, A actions, C = 4 D E or 2 D E for the head's first layer:

    shared       8 D^2 (item MLP) + 2 A D + 2 D^2 (outcomes) + C + 2 E A (fusion and head)
    one row      24 D^2 L: queries, keys, values and output 8 D^2, feed-forward 16 D^2
    attention    4 D L times the row's visible keys: (S - 1) / 2 strict, (S + 1) / 2 with itself
    interleaved  two rows, each with (2 S + 1) / 2 visible keys on average
    pooling      8 D^2 + 4 D (S - 1) / 2
    outcomes     8 D^2 more where they are joined with their item, so not for interleaved rows
    no_action    no outcome terms

Backward does each product twice more, so a step is three forwards. Nothing elementwise is counted:
norms, rotations, softmax, activations. Masked halves of the attention are not counted either.
"""

from dataclasses import dataclass

SCHEMES = ("interleaved", "attn_lfa", "attn_mvp", "attn_mvp_without_lfa", "no_action")
POOLING = ("attn_lfa", "attn_mvp")
STRICT = ("attn_mvp", "attn_mvp_without_lfa")


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """Size a ranker.

    Attributes:
        width: Width of the streams.
        layers: Blocks.
        heads: Attention heads; they do not change the count.
        head_width: Hidden width of the prediction head.
        num_actions: Actions.
    """

    width: int
    layers: int
    heads: int
    head_width: int
    num_actions: int = 3


def step_flops(scheme: str, size: Size, *, events: int) -> tuple[float, float]:
    """Return the operations of forward and backward per event: products, attention.

    Args:
        scheme: One of `SCHEMES`.
        size: The model.
        events: Events per sequence, S.
    """
    width, layers = size.width, size.layers
    rows = 2 if scheme == "interleaved" else 1
    streams = 2 if scheme in POOLING else 1
    fusion = 4 * streams * width * size.head_width + 2 * size.head_width * size.num_actions
    linear = 8 * width**2 + fusion + 24 * width**2 * layers * rows
    if scheme != "no_action":
        linear += 2 * size.num_actions * width + 2 * width**2
        linear += 0 if scheme == "interleaved" else 8 * width**2
    keys = (events - 1) / 2 if scheme in STRICT else (events + 1) / 2
    if scheme == "interleaved":
        keys = (2 * events + 1) / 2
    attention = 4 * width * layers * rows * keys
    if scheme in POOLING:
        linear += 8 * width**2
        attention += 4 * width * (events - 1) / 2
    return 3.0 * linear, 3.0 * attention


def floor_ratio(scheme: str, size: Size, *, events: int) -> float:
    """Return a scheme's operations over the interleaved model's."""
    own = sum(step_flops(scheme, size, events=events))
    return own / sum(step_flops("interleaved", size, events=events))
