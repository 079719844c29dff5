"""What a Ray Train worker runs for each model: the model's own `fit`, with the context's callables.

Kept apart from `infra/cluster.py`, so that a worker imports only what its training needs.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.worker_loop import WorkerContext

if TYPE_CHECKING:
    from ml.training.job import Launch


def ranker(config: Mapping[str, Any], context: WorkerContext) -> None:
    """Train the sequence ranker of the prepared folder `config["data"]`.

    Rows that the folder does not hold itself are read from their table while training.
    """
    from ml.ranking.sequence_ranker.fit import fit, streamed_rows

    folder, rows = Path(config["data"]), None
    if (reference := streamed_rows(folder)) is not None:
        from infra.delta_rows import open_rows

        rows = open_rows(reference)
    launch = _launch(config, context)
    result = fit(folder, report=context.report, prepare=context.prepare, launch=launch, rows=rows)
    context.keep(result.best, result.checkpoint, result.history)


def retriever(config: Mapping[str, Any], context: WorkerContext) -> None:
    """Train the dual encoder of the prepared folder `config["data"]`."""
    from ml.retrieval.dual_encoder.fit import fit

    result = fit(Path(config["data"]), report=context.report, prepare=context.prepare)
    context.keep(result.best, result.checkpoint, result.history)


def prompt_ranker(config: Mapping[str, Any], context: WorkerContext) -> None:
    """Train the sparse decoder of the prepared folder `config["data"]`."""
    from ml.generative.prompt_ranker.fit import fit

    result = fit(
        Path(config["data"]),
        report=context.report,
        prepare=context.prepare,
        launch=_launch(config, context),
    )
    context.keep(result.best, result.checkpoint, result.history)


def _launch(config: Mapping[str, Any], context: WorkerContext) -> "Launch":
    """Return what an elastic training needs: steps of a fixed size, and checkpoints in epochs."""
    from ml.training.job import Launch

    return Launch(
        step_batches=context.most_workers,
        checkpoints_per_epoch=config.get("checkpoints_per_epoch"),
    )
