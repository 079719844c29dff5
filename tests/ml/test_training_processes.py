"""Two real processes over gloo: the ranker's training with HDET, as a runner would start it."""

import json
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from ml.features import SequenceData
from ml.ranking.inputs import RankerInputs
from ml.ranking.sequence_ranker.recipes import toy
from ml.ranking.sequence_ranker.training import build_model, load_ranker, ranker_job
from ml.training.collectives import current_replicas
from ml.training.flat import pack
from ml.training.hdet.controller import HdetConfig
from ml.training.loop import train
from tests.ml.sequence_examples import feature_spec, item_table, sequences


def _inputs() -> RankerInputs:
    def split(name: str, seed: int) -> SequenceData:
        return sequences([18] * 24, split=name, seed=seed)

    return RankerInputs(
        train=split("train", 0),
        validation=split("validation", 1),
        items=item_table(),
        spec=feature_spec(),
    )


def _worker(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    recipe, inputs = toy(), _inputs()
    config = replace(
        recipe,
        batches=replace(recipe.batches, events=60),
        training=replace(recipe.training, epochs=2, hdet=HdetConfig(sync_steps=2)),
    )
    model = build_model(config, spec=inputs.spec, items=inputs.items)
    result = train(
        model,
        ranker_job(model, inputs, config, folder=folder / "run"),
        config.training,
        report=lambda *_: None,
        prepare=lambda m: m,
    )
    flat = pack(list(model.parameters()))
    outcome = {
        "history": result.history,
        "equal": bool((current_replicas().gather(flat) == flat).all()),
        "checkpoint": str(result.checkpoint),
    }
    (folder / f"rank-{rank}.json").write_text(json.dumps(outcome))
    dist.destroy_process_group()


def test_two_processes_spread_meet_and_agree(tmp_path: Path) -> None:
    spawn(_worker, args=(tmp_path,), nprocs=2)
    first, second = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1))
    assert first["equal"]
    assert second["equal"]
    for ours, theirs in zip(first["history"], second["history"], strict=True):
        assert ours["validation_ne"] == theirs["validation_ne"]
        assert ours["replica_difference_before_converge"] > 0
        assert ours["replica_difference_after_converge"] == 0
        rates = [ours[f"learning_rate_embedding_replica_{rank}"] for rank in (0, 1)]
        assert rates[0] != rates[1]
    assert load_ranker(Path(first["checkpoint"])).spec == feature_spec()
