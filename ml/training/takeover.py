"""Let a training go on from another one's checkpoint, under hyper-parameters of its own."""

import json
import shutil
from pathlib import Path

from ml.training.checkpoint import OPTIMIZER_FILE, appear, load_state
from ml.training.checkpoint_keeper import step_folder

_NEVER_DECAYED = "no_decay"


def take_over(checkpoint: Path, folder: Path, *, weight_decay: float) -> Path:
    """Make a checkpoint the only one of a training's checkpoint folder.

    A training that continues takes its learning rate and dropout from its own recipe, but its
    weight decay from the optimiser's saved groups: it is written into them here.

    Args:
        checkpoint: What `ml.training.checkpoint.save_checkpoint` wrote, under any name.
        folder: Where the training looks for its newest checkpoint; what is there stays until the
            copy is whole, and is gone then.
        weight_decay: Decay of the training that takes over.

    Returns:
        The copy.
    """
    step = int(load_state(checkpoint)["history"][-1]["step"])
    part = folder.with_name(f".{folder.name}-part")
    shutil.rmtree(part, ignore_errors=True)
    copy = step_folder(part, step)
    shutil.copytree(checkpoint, copy)
    groups = json.loads((copy / OPTIMIZER_FILE).read_text())
    for group in groups:
        if group["name"] != _NEVER_DECAYED:
            group["weight_decay"] = weight_decay
    (copy / OPTIMIZER_FILE).write_text(json.dumps(groups, indent=1))
    appear(part, folder)
    return step_folder(folder, step)
