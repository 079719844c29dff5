"""Checkpoints in safetensors and JSON, no pickle; a folder appears whole or not at all."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import Optimizer

from ml.layers.sharded_embedding import ShardedEmbedding
from ml.layers.sharded_files import copy_rows, load_rows
from ml.tensor_files import write_tensors

MODEL_FILE = "model.safetensors"
OPTIMIZER_TENSORS = "optimizer.safetensors"
OPTIMIZER_FILE = "optimizer.json"
STATE_FILE = "state.json"
# Of a prepared training: where its checkpoints are.
CHECKPOINTS_FOLDER = "checkpoints"
# One folder for each sharded table, by the name of its module.
TABLES_FOLDER = "tables"
_ASIDE = ".aside"


def save_checkpoint(
    folder: Path,
    model: nn.Module | Mapping[str, Tensor],
    *,
    optimizer: Optimizer | Mapping[str, Any] | None = None,
    state: Mapping[str, Any] | None = None,
    texts: Mapping[str, str] | None = None,
) -> Path:
    """Write a checkpoint folder; an existing one of this name is replaced.

    Args:
        folder: Where it shall appear.
        model: Its weights and buffers are written; or these themselves, by name.
        optimizer: Its state is written if given; or what its `state_dict` returned.
        state: Plain values to resume from.
        texts: More files by name, such as configs in JSON.

    Returns:
        The folder.

    Raises:
        OSError: If it cannot be written; what was there before stays.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        write_files(part, model, optimizer=optimizer, state=state, texts=texts)
        appear(part, folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return folder


def write_files(
    part: Path,
    model: nn.Module | Mapping[str, Tensor],
    *,
    optimizer: Optimizer | Mapping[str, Any] | None = None,
    state: Mapping[str, Any] | None = None,
    texts: Mapping[str, str] | None = None,
) -> None:
    """Write a checkpoint's files into a folder that is not seen yet; see `save_checkpoint`.

    Raises:
        OSError: If they cannot be written.
    """
    weights = model.state_dict() if isinstance(model, nn.Module) else model
    write_tensors(_plain(weights), part / MODEL_FILE)
    if optimizer is not None:
        plain = optimizer.state_dict() if isinstance(optimizer, Optimizer) else optimizer
        _save_optimizer(part, plain)
    (part / STATE_FILE).write_text(json.dumps(state or {}, indent=1))
    for name, text in (texts or {}).items():
        (part / name).write_text(text)


def appear(part: Path, folder: Path) -> None:
    """Let a hidden folder that is whole take the place of another beside it.

    The other is moved aside first and removed last, so one of the two is whole on the disk at
    every moment; `recover` finds it after a crash.

    Raises:
        OSError: If it cannot be made to last or to appear; the other is where it was.
    """
    flush([*part.rglob("*"), part])
    part.chmod(0o755)
    aside = folder.with_name(f".{folder.name}{_ASIDE}")
    if folder.exists():
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
    try:
        part.rename(folder)
        flush([folder.parent])
    except BaseException:
        if aside.exists() and not folder.exists():
            aside.rename(folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def vanish(folder: Path) -> None:
    """Remove a folder so that no moment, and no power cut, shows a part of it.

    Raises:
        OSError: If it cannot be removed.
    """
    hidden = folder.with_name(f".{folder.name}-gone")
    folder.rename(hidden)
    flush([folder.parent])
    shutil.rmtree(hidden)


def recover(parent: Path, *, names: str) -> None:
    """Tidy up after processes that ended within `appear` or `vanish`, or before them.

    A folder that was moved aside for one that never appeared gets its name back; all else that
    is hidden was half written or half removed. Several processes may do this at once, but not
    while another one writes.

    Args:
        parent: Where the folders lie.
        names: Pattern of the folders' names, as for `glob`.
    """
    for hidden in parent.glob(f".{names}"):
        folder = hidden.with_name(hidden.name[1:].removesuffix(_ASIDE))
        if hidden.name.endswith(_ASIDE) and not folder.exists():
            with suppress(FileNotFoundError):
                hidden.rename(folder)
        else:
            shutil.rmtree(hidden, ignore_errors=True)


def load_model(folder: Path, model: nn.Module) -> None:
    """Load weights and buffers, and this rank's rows, into a model of the same shape.

    Raises:
        FileNotFoundError: If the folder holds no weights, or not all rows of a sharded table.
        RuntimeError: If a weight is missing, unexpected or of another shape.
    """
    model.load_state_dict(read_weights(folder), strict=True)
    for name, module in model.named_modules():
        if isinstance(module, ShardedEmbedding):
            load_rows(folder / TABLES_FOLDER / name, module)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Return weights and buffers by name.

    Raises:
        FileNotFoundError: If the folder holds no weights.
    """
    path = folder / MODEL_FILE
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}; train the model first")
    return load_file(path)


def load_state(folder: Path) -> dict[str, Any]:
    """Return the plain values of a checkpoint."""
    return json.loads((folder / STATE_FILE).read_text())


def load_optimizer(folder: Path, optimizer: Optimizer) -> None:
    """Load an optimiser's state for the same parameters in the same order."""
    optimizer.load_state_dict(read_optimizer(folder))


def read_optimizer(folder: Path) -> dict[str, Any]:
    """Return an optimiser's state in the form of its `state_dict`."""
    states: dict[int, dict[str, Tensor]] = {}
    for key, tensor in load_file(folder / OPTIMIZER_TENSORS).items():
        index, name = key.split(".", 1)
        states.setdefault(int(index), {})[name] = tensor
    groups = json.loads((folder / OPTIMIZER_FILE).read_text())
    for group in groups:
        group |= {name: tuple(v) for name, v in group.items() if name == "betas"}
    return {"state": states, "param_groups": groups}


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint of the most steps in a folder of `step-...` folders, if any."""
    found = sorted(folder.glob("step-*/" + STATE_FILE))
    return found[-1].parent if found else None


def _save_optimizer(folder: Path, state: Mapping[str, Any]) -> None:
    """Write the tensors of the optimiser's state, and its groups as JSON.

    Raises:
        ValueError: If the state holds something else than tensors.
    """
    tensors = {}
    for index, values in state["state"].items():
        for name, value in values.items():
            if not isinstance(value, Tensor):
                raise ValueError(f"optimiser state {name!r} is not a tensor")
            tensors[f"{index}.{name}"] = value
    write_tensors(_plain(tensors), folder / OPTIMIZER_TENSORS)
    (folder / OPTIMIZER_FILE).write_text(json.dumps(state["param_groups"], indent=1))


def flush(paths: Iterable[Path]) -> None:
    """Make files and folders last, so that what has a name is whole after a power cut."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous tensors on the CPU that share no memory, copied only where they must be."""
    plain: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        # safetensors refuses tensors of one storage, such as tied weights.
        if own.untyped_storage().data_ptr() in seen:
            own = own.clone()
        seen.add(own.untyped_storage().data_ptr())
        plain[name] = own
    return plain


def export_model(checkpoint: Path, target: Path) -> Path:
    """Copy what serving needs of a checkpoint: everything but the state to resume from.

    Args:
        checkpoint: The checkpoint to export; of sharded tables the rows alone are taken.
        target: Folder to write; one that exists stays until the new one is whole.

    Raises:
        OSError: If it cannot be written; what was there before stays.
    """
    part = target.with_name(f".{target.name}-part")
    shutil.rmtree(part, ignore_errors=True)
    left_out = {OPTIMIZER_TENSORS, OPTIMIZER_FILE, STATE_FILE, TABLES_FOLDER}
    try:
        shutil.copytree(checkpoint, part, ignore=shutil.ignore_patterns(*left_out))
        for table in (checkpoint / TABLES_FOLDER).glob("*"):
            copy_rows(table, part / TABLES_FOLDER / table.name)
        appear(part, target)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return target
