"""What every fit of the HDET bench has in common: data in parts, a model, a probe and a score."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path

import torch
from torch import Tensor, nn

from ml.batches import Batch, SequenceBatches, Shard
from ml.features import SequenceData
from ml.metrics import normalized_entropy
from ml.ranking.contenders import Exam
from ml.ranking.leaderboard.exam_folder import ExamFolder, data_version
from ml.ranking.sequence_ranker.model import SequenceRanker
from ml.ranking.sequence_ranker.score import score
from ml.ranking.sequence_ranker.training import batches_for, build_model, sequence_losses
from ml.training.parameters import parameter_groups
from tests.benchmarks.hdet_plan import Plan

_PROBE_EPOCH = 1_000_000
_MADE_BY = "make leaderboard SOURCE={source} BUDGET_MINUTES=0"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Task:
    """Hold one source's exam and what is trained on it.

    Attributes:
        source: Name of the data source.
        data: Version of the data.
        exam: Train and validation.
        test: The test split, which judges.
        plan: Sizes.
    """

    source: str
    data: str
    exam: Exam
    test: SequenceData
    plan: Plan

    @classmethod
    def load(cls, source: str, folder: Path, *, plan: Plan) -> "Task":
        """Read the exam that the leaderboard has prepared.

        Raises:
            FileNotFoundError: If it has not.
        """
        kept = ExamFolder(path=folder)
        if not (folder / "spec.json").is_file():
            raise FileNotFoundError(
                f"no exam of {source} in {folder}: `{_MADE_BY.format(source=source)}` prepares it"
            )
        exam, test = kept.exam(), kept.open_test()
        version = data_version({**exam.splits, "test": test}, items=exam.items, spec=exam.spec)
        return cls(source=source, data=version, exam=exam, test=test, plan=plan)

    def model(self, seed: int) -> SequenceRanker:
        """Return a new model; its weights depend on the seed only."""
        recipe = self.plan.recipe
        recipe = replace(recipe, training=replace(recipe.training, seed=seed))
        exam = self.exam
        train = exam.splits["train"]
        return build_model(recipe, spec=exam.spec, items=exam.items, train=train)

    def optimizer(self, model: nn.Module, rate: float) -> torch.optim.AdamW:
        """Return the loop's optimiser: AdamW on embeddings, other matrices, and the rest."""
        decay = self.plan.recipe.training.weight_decay
        return torch.optim.AdamW(parameter_groups(model, weight_decay=decay), lr=rate, fused=True)

    def parts(self, model: SequenceRanker, *, seed: int) -> Iterator[list[Batch]]:
        """Yield the parts of each step, one per replica, epoch after epoch without end."""
        batches = self._batches(model, events=self.plan.replica_events, seed=seed)
        size = self.plan.replicas
        for epoch in count():
            shards = [batches.epoch(epoch, shard=Shard(rank=r, size=size)) for r in range(size)]
            for step in zip(*shards, strict=True):
                parts = [part for part in step if part is not None]
                if len(parts) == size:  # the epoch's last step may lack some
                    yield parts

    def probes(self, model: SequenceRanker, *, seed: int) -> "Probes":
        """Return the probes of a fit: train sequences in an order that no epoch has."""
        return Probes(self._batches(model, events=self.plan.probe_events, seed=seed))

    def entropy(self, model: SequenceRanker, *, split: str) -> float:
        """Return the primary action's NE on a split; NaN if a prediction is not finite."""
        data = self.test if split == "test" else self.exam.splits[split]
        bit = self.exam.spec.primary_index
        labels = data.labels(bit)[data.is_target]
        return normalized_entropy(labels, score(model, batches_for(model, data))[:, bit])

    def _batches(self, model: SequenceRanker, *, events: int, seed: int) -> SequenceBatches:
        config = replace(self.plan.recipe.batches, events=events, seed=seed)
        return batches_for(model, self.exam.splits["train"], config=config)


class Probes:
    """Cut the probe of each sync once, for all replicas."""

    def __init__(self, batches: SequenceBatches) -> None:
        """Start without a probe."""
        self._batches = batches
        self._cut: dict[int, Batch] = {}

    def losses(self, model: nn.Module, sync: int) -> Tensor:
        """Return the model's mean loss of each sequence of a sync's probe, [B]."""
        batch = self._cut.get(sync)
        if batch is None:
            batch = next(islice(self._batches.epoch(_PROBE_EPOCH + sync), 1))
            self._cut = {sync: batch}
        model.eval()
        with torch.no_grad():
            losses = sequence_losses(model, batch)
        model.train()
        return losses
