"""Let a training go on from another one's checkpoint, under hyper-parameters of its own."""

import json
import shutil
from pathlib import Path

from ml.training.checkpoint import OPTIMIZER_FILE, load_state

_NEVER_DECAYED = "no_decay"


def take_over(checkpoint: Path, folder: Path, *, weight_decay: float) -> Path:
    """Make a checkpoint the only one of a training's checkpoint folder.

    A training that continues takes its learning rate and dropout from its own recipe, but its
    weight decay from the optimiser's saved groups: it is written into them here.

    Args:
        checkpoint: What `ml.training.checkpoint.save_checkpoint` wrote, under any name.
        folder: Where the training looks for its newest checkpoint; what is there is replaced.
        weight_decay: Decay of the training that takes over.

    Returns:
        The copy.
    """
    step = int(load_state(checkpoint)["history"][-1]["step"])
    shutil.rmtree(folder, ignore_errors=True)
    copy = folder / f"step-{step:09d}"
    shutil.copytree(checkpoint, copy)
    groups = json.loads((copy / OPTIMIZER_FILE).read_text())
    for group in groups:
        if group["name"] != _NEVER_DECAYED:
            group["weight_decay"] = weight_decay
    (copy / OPTIMIZER_FILE).write_text(json.dumps(groups, indent=1))
    return copy
