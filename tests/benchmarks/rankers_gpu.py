"""What share of a GPU's arithmetic a training step uses: model FLOPs utilisation.

The operations are those of rankers_flops.py, so masked halves of the attention and recomputed
activations do not count; the peak is the card's dense bfloat16 rate as its maker states it.
"""

from statistics import median

import torch

from tests.benchmarks.rankers_data import ACTIONS
from tests.benchmarks.rankers_flops import Size, step_flops
from tests.benchmarks.rankers_step import Stepper, Workload

PEAK_FLOPS = {"H100": 989.4e12, "H200": 989.4e12, "A100": 311.84e12, "L40S": 362.05e12}
SCHEME = "attn_mvp"
LARGE = Workload(
    name="large",
    size=Size(width=1024, layers=8, heads=16, head_width=1024, num_actions=len(ACTIONS)),
    events=4096,
    batch=8,
    compiled=True,
    device="cuda",
    is_narrow=True,
)


def peak_flops(card: str) -> float | None:
    """Return the dense bfloat16 operations per second of a card by its name, None if unknown."""
    return next((peak for name, peak in PEAK_FLOPS.items() if name in card), None)


def utilisation(load: Workload = LARGE, *, rounds: int) -> float | None:
    """Return the share of the peak in forward and backward, None without a known GPU.

    Args:
        load: What is stepped, on a CUDA device.
        rounds: Timed steps; the median counts.
    """
    if not torch.cuda.is_available():
        return None
    card = torch.cuda.get_device_name()
    peak = peak_flops(card)
    if peak is None:
        print(f"no peak rate is known for {card}; add it to {__name__}.PEAK_FLOPS")
        return None
    stepper = Stepper(SCHEME, load)
    for _ in range(3):
        stepper.step()
    seconds = median(stepper.step().passes for _ in range(rounds))
    flops = sum(step_flops(SCHEME, load.size, events=load.events)) * load.events * load.batch
    print(f"{card}: {SCHEME}, {load.batch} x {load.events} events in {seconds:.3f} s")
    return flops / seconds / peak
