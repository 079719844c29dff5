"""The loop with embedding tables of sparse gradients, replicated or cut by rows."""

import errno
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from ml.ranking.sequence_ranker.training import load_ranker
from ml.training.checkpoint import export_model, load_model, load_state, read_optimizer
from ml.training.collectives import SingleReplica
from ml.training.config import CheckpointConfig, TrainConfig
from ml.training.gain_ratio import AdaScaleConfig
from ml.training.optimizers import build_optimizer
from ml.training.replicated import held
from ml.training.tables.files import save_together, whole_weights
from tests.infra.small_disk import filled, mounted
from tests.ml.replica_threads import ThreadReplicas, on_replicas
from tests.ml.table_job import (
    HDET,
    NUM_ROWS,
    TABLES,
    TableNetwork,
    ranker_recipe,
    train_ranker,
    worker,
)
from tests.ml.toy_job import (
    CONFIG,
    EPOCH,
    NO_HDET,
    KilledError,
    killed_at,
    network,
    run_training,
    toy_job,
    weights_of,
)

LAST = f"step-{3 * EPOCH:09d}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what two processes with sharded tables have left."""
    path = tmp_path_factory.mktemp("tables")
    spawn(worker, args=(path,), nprocs=2)
    return path


def _outcomes(folder: Path) -> list[dict[str, Any]]:
    return [torch.load(folder / f"rank-{rank}.pt") for rank in (0, 1)]


def _alone(folder: Path, kind: str = "sparse") -> TableNetwork:
    model = TableNetwork(kind)
    run_training(model, toy_job(folder, SingleReplica()), TABLES)
    return model


def test_replicas_that_share_sparse_gradients_train_as_one(tmp_path: Path) -> None:
    def on_one(replicas: ThreadReplicas) -> Tensor:
        model = TableNetwork("sparse")
        run_training(model, toy_job(tmp_path / "two", replicas), TABLES)
        return weights_of(model)

    first, second = on_replicas(2, on_one)
    assert torch.equal(first, second)
    torch.testing.assert_close(first, weights_of(_alone(tmp_path / "one")), rtol=1e-5, atol=1e-5)


def test_the_first_step_is_row_wise_adagrad_of_the_clipped_mean_gradient(tmp_path: Path) -> None:
    config = replace(TABLES, clip_norm=0.01, optimizer="sgd", momentum=0.0)
    start, model = TableNetwork("dense"), TableNetwork("sparse")
    job = toy_job(tmp_path, SingleReplica())
    loss, weight = job.loss(start, next(iter(job.epoch(0))))
    (loss / weight).backward()
    gradients = [parameter.grad for parameter in start.parameters()]
    norm = torch.cat([g.flatten() for g in gradients if g is not None]).norm()
    rate = 0.3 / CONFIG.div_factor
    clipped = gradients[0] * (0.01 / norm)  # type: ignore[operator]
    root = clipped.square().mean(1, keepdim=True).sqrt()
    expected = start.ids.weight - rate * clipped / (root + 1e-8)
    with pytest.raises(KilledError):
        run_training(model, killed_at(job, 1), config)
    torch.testing.assert_close(model.ids.weight, expected, rtol=1e-4, atol=1e-6)
    assert not torch.equal(model.ids.weight, start.ids.weight)


@pytest.mark.parametrize("step", [5, 9, 13])
def test_a_kill_changes_no_bit_of_a_table(tmp_path: Path, step: int) -> None:
    whole = _alone(tmp_path / "whole")
    job = toy_job(tmp_path / "parts", SingleReplica())
    with pytest.raises(KilledError):
        run_training(TableNetwork("sparse"), killed_at(job, step), TABLES)
    parts = TableNetwork("sparse")
    with torch.no_grad():
        parts.ids.weight.zero_()
    run_training(parts, job, TABLES)
    assert torch.equal(weights_of(whole), weights_of(parts))


@pytest.mark.parametrize("gradient_sync", ["shared", "local"])
def test_hdet_goes_on_with_a_sparse_table_as_if_uninterrupted(
    tmp_path: Path, gradient_sync: str
) -> None:
    config = replace(TABLES, hdet=replace(HDET, gradient_sync=gradient_sync))

    def run(name: str, *, kill: int | None) -> Callable[[ThreadReplicas], Tensor]:
        def on_one(replicas: ThreadReplicas) -> Tensor:
            job = toy_job(tmp_path / name, replicas)
            if kill is not None:
                with pytest.raises(KilledError):
                    run_training(TableNetwork("sparse"), killed_at(job, kill), config)
            model = TableNetwork("sparse")
            run_training(model, job, config)
            return weights_of(model)

        return on_one

    whole, parts = on_replicas(2, run("whole", kill=None)), on_replicas(2, run("parts", kill=9))
    assert torch.equal(whole[0], whole[1])
    assert torch.equal(whole[0], parts[0])
    state = load_state(tmp_path / "whole" / LAST)
    assert any(sync["difference_before"] > 0 for sync in state["syncs"])
    assert all(sync["difference_after"] == 0 for sync in state["syncs"])
    assert "touched" not in state["driver"]


def test_sharded_tables_train_as_a_replicated_one(folder: Path, tmp_path: Path) -> None:
    alone = _alone(tmp_path)
    for rank, outcome in enumerate(_outcomes(folder)):
        own = alone.ids.weight.detach()[rank::2]
        torch.testing.assert_close(outcome["whole"]["ids.weight"], own, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            outcome["whole"]["head.weight"], alone.head.weight.detach(), rtol=1e-5, atol=1e-5
        )


def test_sharded_tables_go_on_within_an_epoch_as_if_uninterrupted(folder: Path) -> None:
    for outcome in _outcomes(folder):
        for name, whole in outcome["whole"].items():
            assert torch.equal(whole, outcome["parts"][name]), name


def test_one_process_goes_on_with_the_rows_of_two(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "whole" / "step-000000008", tmp_path / "step-000000008")
    model = TableNetwork("sharded")
    run_training(model, toy_job(tmp_path, SingleReplica()), TABLES)
    rows = torch.zeros(NUM_ROWS, model.ids.weight.shape[1])
    for rank, outcome in enumerate(_outcomes(folder)):
        rows[rank::2] = outcome["whole"]["ids.weight"]
    torch.testing.assert_close(model.ids.weight.detach(), rows, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["hdet", "noise", "local", "auto_lr", "adascale"])
def test_what_compares_whole_replicas_is_refused(folder: Path, method: str) -> None:
    for outcome in _outcomes(folder):
        assert "'ids' is a table cut over 2 ranks" in outcome["refusals"][method]


def test_a_plain_table_serves_what_sharded_ones_have_learned(folder: Path, tmp_path: Path) -> None:
    plain = TableNetwork("dense")
    served = export_model(folder / "whole" / LAST, tmp_path / "out")
    plain.load_state_dict(whole_weights(served))
    for rank, outcome in enumerate(_outcomes(folder)):
        assert torch.equal(plain.ids.weight.detach()[rank::2], outcome["whole"]["ids.weight"])
    alone = TableNetwork("sharded")
    load_model(served, alone)
    numbers = torch.randn(9, 4, generator=torch.Generator().manual_seed(5))
    assert torch.equal(alone(numbers), plain(numbers))
    files = sorted((served / "tables" / "ids").iterdir())
    assert [set(load_file(path)) for path in files] == [{"weight"}, {"weight"}]


def test_a_ranker_of_two_workers_with_a_sharded_table_is_the_sparse_one(
    folder: Path, tmp_path: Path
) -> None:
    result = train_ranker(tmp_path / "alone", ranker_recipe("sparse_table"))
    alone = [row["validation_ne"] for row in result.history]
    for outcome in _outcomes(folder):
        assert outcome["ranker"] == pytest.approx(alone, rel=1e-4)
    steps = sorted(path.name for path in (folder / "ranker").glob("step-*"))
    sharded = load_ranker(folder / "ranker" / steps[-1])
    sparse = load_ranker(tmp_path / "alone" / steps[-1])
    assert sharded.config == sparse.config
    for name, weight in sparse.state_dict().items():
        torch.testing.assert_close(
            sharded.state_dict()[name], weight, rtol=1e-3, atol=1e-4, msg=name
        )


def test_the_state_of_the_table_is_one_number_per_row(tmp_path: Path) -> None:
    _alone(tmp_path)
    state = read_optimizer(tmp_path / LAST)
    assert state["param_groups"][-1]["name"] == "table"
    (index,) = state["param_groups"][-1]["params"]
    assert {name: list(value.shape) for name, value in state["state"][index].items()} == {
        "sum": [NUM_ROWS]
    }


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ((0, errno.ENOSPC), errno.ENOSPC),
        ((errno.ENOSPC, 0), errno.ENOSPC),
        ((errno.ENOSPC, errno.EACCES), errno.EACCES),
    ],
)
def test_what_one_replica_cannot_write_costs_all_of_them_the_new_checkpoint_only(
    tmp_path: Path, codes: tuple[int, int], expected: int
) -> None:
    def run(replicas: ThreadReplicas) -> int | None:
        def every(part: Path) -> None:
            if code := codes[replicas.rank]:
                raise OSError(code, "it does not work here")
            (part / f"rows-{replicas.rank}").write_text("new")

        try:
            save_together(tmp_path / "step-2", first=lambda _: None, every=every, replicas=replicas)
        except OSError as error:
            return error.errno
        return 0

    (tmp_path / "step-2").mkdir()
    (tmp_path / "step-2" / "rows-0").write_text("old")
    assert on_replicas(2, run) == [expected, expected]
    assert [path.name for path in tmp_path.iterdir()] == ["step-2"]
    assert (tmp_path / "step-2" / "rows-0").read_text() == "old"


def test_a_training_goes_on_while_there_is_no_room_for_rows(tmp_path: Path) -> None:
    config = replace(TABLES, checkpoints=CheckpointConfig())
    with mounted(tmp_path / "disk", mebibytes=4) as disk:
        job = toy_job(disk / "run", SingleReplica())
        with ExitStack() as full:

            def filling(model: nn.Module) -> dict[str, float]:
                if job.folder.exists() and not (disk / "ballast").exists():
                    full.enter_context(filled(disk, room_bytes=0))
                return job.validate(model)

            result = run_training(TableNetwork("sharded"), replace(job, validate=filling), config)
        assert [path.name for path in job.folder.iterdir()] == [f"step-{EPOCH:09d}"]
        assert len(result.history) == 3
        again = TableNetwork("sharded")
        run_training(again, job, config)
        whole = TableNetwork("sharded")
        run_training(whole, toy_job(tmp_path / "whole", SingleReplica()), config)
        assert torch.equal(weights_of(again), weights_of(whole))


def test_a_folder_that_all_replicas_wrote_appears_whole(tmp_path: Path) -> None:
    def run(replicas: ThreadReplicas) -> None:
        save_together(
            tmp_path / "step-2",
            first=lambda part: (part / "first").touch(),
            every=lambda part: (part / f"rows-{replicas.rank}").touch(),
            replicas=replicas,
        )

    on_replicas(2, run)
    assert [path.name for path in tmp_path.iterdir()] == ["step-2"]
    found = sorted(path.name for path in (tmp_path / "step-2").iterdir())
    assert found == ["first", "rows-0", "rows-1"]


@pytest.mark.parametrize(
    ("model", "config", "remedy"),
    [
        (lambda: TableNetwork("sparse"), CONFIG, "table_optimizer='rowwise_adagrad'"),
        (network, TABLES, "table_optimizer='shared'"),
    ],
)
def test_tables_and_their_optimizer_come_together(
    model: Callable[[], nn.Module], config: TrainConfig, remedy: str
) -> None:
    with pytest.raises(ValueError, match=remedy):
        build_optimizer(model(), config)


def test_a_table_over_other_ranks_than_the_replicas_is_refused(tmp_path: Path) -> None:
    def run(replicas: ThreadReplicas) -> None:
        run_training(TableNetwork("sharded"), toy_job(tmp_path, replicas), TABLES)

    with pytest.raises(ValueError, match=r"after torch\.distributed is initialised"):
        on_replicas(2, run)


@pytest.mark.parametrize("kind", ["sparse", "sharded"])
def test_a_model_that_is_split_by_layers_takes_no_such_table(kind: str) -> None:
    config = replace(CONFIG, sharding="full")

    def run(replicas: ThreadReplicas) -> None:
        held(TableNetwork(kind), config, replicas=replicas)

    with pytest.raises(ValueError, match="item_table='replicated'"):
        on_replicas(2, run)


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"sharding": "full"}, "sharding='none'"),
        ({"optimizer": "sgd", "adascale": AdaScaleConfig()}, "adascale=None"),
        ({"table_learning_rate": 0.0}, "table_learning_rate must be above 0"),
        ({"table_optimizer": "adam"}, "table_optimizer is one of"),
    ],
)
def test_a_configuration_that_a_table_cannot_follow_is_refused(
    changes: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(ValueError, match=remedy):
        TrainConfig(
            **{"hdet": NO_HDET, "table_optimizer": "rowwise_adagrad", **changes}  # type: ignore[arg-type]
        )
