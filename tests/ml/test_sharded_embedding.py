"""The sharded table against nn.Embedding, on two real processes and on one shard."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from torch.multiprocessing.spawn import spawn

from ml.layers.sharded_embedding import ShardedEmbedding, initial_rows, refuse_sharded
from ml.layers.sharded_files import load_rows, save_rows
from ml.training.checkpoint import MODEL_FILE, read_weights, save_checkpoint
from ml.training.tables.rowwise_adagrad import RowwiseAdagrad
from tests.ml import gloo_tables
from tests.ml.gloo_tables import NUM_ROWS, STEPS, WIDTH, ids_of, loss_of, new_table, whole_table


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """Run both processes once; return their folder and what each of them found."""
    folder = tmp_path_factory.mktemp("two")
    spawn(gloo_tables.worker, args=(str(folder),), nprocs=2)
    return folder, [torch.load(folder / f"rank-{rank}.pt") for rank in range(2)]


def test_two_ranks_look_up_what_one_table_holds(
    two: tuple[Path, list[dict[str, Any]]],
) -> None:
    for rank, found in enumerate(two[1]):
        assert torch.equal(found["vectors"], whole_table()[ids_of(rank, 0)])


def test_owners_get_the_gradient_of_both_ranks_losses(
    two: tuple[Path, list[dict[str, Any]]],
) -> None:
    table = nn.Embedding(NUM_ROWS, WIDTH, _weight=whole_table())
    (loss_of(table(ids_of(0, 0))) + loss_of(table(ids_of(1, 0)))).backward()
    assert table.weight.grad is not None
    touched = torch.cat([ids_of(rank, 0).flatten() for rank in range(2)]).unique()
    assert 0 < len(touched) < NUM_ROWS
    for rank, found in enumerate(two[1]):
        torch.testing.assert_close(found["gradient"], table.weight.grad)
        assert found["is_coalesced"]
        assert found["gradient_rows"] == [int(row) // 2 for row in touched if row % 2 == rank]


def test_an_id_travels_once_however_often_it_stands_in_the_batch(
    two: tuple[Path, list[dict[str, Any]]],
) -> None:
    asked = [ids_of(rank, 0).unique() for rank in range(2)]
    assert all(len(rows) < ids_of(rank, 0).numel() for rank, rows in enumerate(asked))
    for rank, found in enumerate(two[1]):
        served = sum(int((rows % 2 == rank).sum()) for rows in asked)
        # How many rows, which rows, their vectors, and the gradients of what was asked.
        assert found["exchanged"] == [2, len(asked[rank]), served, len(asked[rank])]


def test_gradients_of_two_backward_passes_add_up_and_stay_coalesced() -> None:
    table = new_table()
    for step in range(2):
        loss_of(table(ids_of(0, step))).backward()
    reference = nn.Embedding(NUM_ROWS, WIDTH, _weight=whole_table())
    (loss_of(reference(ids_of(0, 0))) + loss_of(reference(ids_of(0, 1)))).backward()
    assert table.weight.grad is not None
    assert reference.weight.grad is not None
    assert table.weight.grad.is_coalesced()
    torch.testing.assert_close(table.weight.grad.to_dense(), reference.weight.grad)


def test_two_ranks_train_as_one_process(two: tuple[Path, list[dict[str, Any]]]) -> None:
    table = nn.Embedding(NUM_ROWS, WIDTH, sparse=True, _weight=whole_table())
    optimizer = RowwiseAdagrad(table.parameters(), lr=0.1)
    for step in range(STEPS):
        optimizer.zero_grad()
        (loss_of(table(ids_of(0, step))) + loss_of(table(ids_of(1, step)))).backward()
        optimizer.step()
    assert (table.weight - whole_table()).abs().max() > 0.05
    for found in two[1]:
        torch.testing.assert_close(found["trained"], table.weight.detach())
        torch.testing.assert_close(found["sums"], optimizer.accumulator(table.weight))


def test_hdet_refuses_a_cut_table_and_names_it_and_the_remedy(
    two: tuple[Path, list[dict[str, Any]]],
) -> None:
    for found in two[1]:
        for part in ("HDET", "'items_table'", "spread_fraction=0", "auto_lr=False"):
            assert part in found["refusal"]


def test_hdet_takes_a_table_in_one_piece() -> None:
    refuse_sharded(nn.ModuleDict({"items_table": new_table()}), method="HDET")


def test_sparse_sum_is_the_dense_all_reduce(two: tuple[Path, list[dict[str, Any]]]) -> None:
    for found in two[1]:
        assert torch.equal(found["sparse_sum"], found["dense_sum"])
        assert found["sum_of_nothing"] == 0


def test_rows_survive_two_ranks_then_one_then_two(
    two: tuple[Path, list[dict[str, Any]]],
) -> None:
    folder, results = two
    for found in results:
        assert torch.equal(found["resharded"], whole_table())
        assert torch.equal(found["read_by_as_many"], whole_table())
        assert torch.equal(found["resharded_sums"], torch.arange(float(NUM_ROWS)))
    single = new_table(seed=3)
    load_rows(folder / "two", single)
    assert torch.equal(single.weight, whole_table())


def _as_shard(rank: int, size: int) -> ShardedEmbedding:
    """Return a table that holds what a rank of a larger group would hold, of zeros."""
    table = new_table()
    table.rank, table.size = rank, size
    table.weight = nn.Parameter(torch.zeros(len(range(rank, NUM_ROWS, size)), WIDTH))
    return table


@pytest.mark.parametrize(("saved", "read"), [(4, 3), (3, 4), (2, 4), (4, 2), (6, 4), (12, 1)])
def test_rows_are_read_by_any_number_of_ranks_in_slices(
    saved: int, read: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ml.layers.sharded_files._CHUNK_ROWS", 2)
    for rank in range(saved):
        table = _as_shard(rank, saved)
        table.weight.data.copy_(whole_table()[rank::saved])
        save_rows(tmp_path, table)
    for rank in range(read):
        table = _as_shard(rank, read)
        load_rows(tmp_path, table)
        assert torch.equal(table.weight, whole_table()[rank::read])


def test_rows_on_disk_are_those_of_their_rank(two: tuple[Path, list[dict[str, Any]]]) -> None:
    for rank in range(2):
        path = two[0] / "two" / f"rows-{rank:05d}-of-00002.safetensors"
        with safe_open(path, framework="pt") as file:
            assert torch.equal(file.get_tensor("weight"), whole_table()[rank::2])


def test_a_missing_rank_and_a_second_table_are_refused(tmp_path: Path) -> None:
    table = new_table()
    with pytest.raises(FileNotFoundError, match="lacks a table"):
        load_rows(tmp_path, table)
    written = save_rows(tmp_path, table)
    bytes_of_one = written.read_bytes()
    (tmp_path / "rows-00000-of-00002.safetensors").write_bytes(bytes_of_one)
    with pytest.raises(ValueError, match=r"\[1, 2\] ranks"):
        load_rows(tmp_path, table)
    written.unlink()
    with pytest.raises(FileNotFoundError, match="rows-00001-of-00002"):
        load_rows(tmp_path, table)


def test_another_table_is_refused(tmp_path: Path) -> None:
    save_rows(tmp_path, new_table())
    with pytest.raises(ValueError, match="of 11 rows"):
        load_rows(tmp_path, ShardedEmbedding(12, WIDTH))
    with pytest.raises(ValueError, match="rows of"):
        load_rows(tmp_path, ShardedEmbedding(NUM_ROWS, WIDTH + 1))
    with pytest.raises(ValueError, match="'sum'"):
        load_rows(tmp_path, new_table(), extra={"sum": torch.zeros(NUM_ROWS)})
    with pytest.raises(ValueError, match="'sum' has the shape"):
        save_rows(tmp_path, new_table(), extra={"sum": torch.zeros(NUM_ROWS + 1)})


def test_first_rows_are_those_of_split_mix_64() -> None:
    # The first outputs of the published generator with seed 0.
    words = (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC)
    expected = [((word >> 40) + 0.5) / 2**23 - 1 for word in words]
    rows = initial_rows(np.arange(2), width=2, seed=0, scale=3**-0.5)
    np.testing.assert_allclose(rows.ravel(), expected, atol=2e-7)


def test_first_rows_do_not_depend_on_the_number_of_ranks() -> None:
    whole = initial_rows(np.arange(40), width=5, seed=3, scale=1.0)
    for size in (2, 4):
        for rank in range(size):
            shard = initial_rows(np.arange(rank, 40, size), width=5, seed=3, scale=1.0)
            assert np.array_equal(shard, whole[rank::size])
    assert not np.isclose(whole, initial_rows(np.arange(40), width=5, seed=4, scale=1.0)).any()


def test_first_rows_have_the_stated_spread() -> None:
    rows = initial_rows(np.arange(20_000), width=8, seed=1, scale=0.05)
    assert abs(rows.mean()) < 5e-4
    assert rows.std() == pytest.approx(0.05, rel=0.01)
    assert abs(np.corrcoef(rows, rowvar=False) - np.eye(8)).max() < 0.03


def test_chunks_of_one_table_join_without_a_seam() -> None:
    table = ShardedEmbedding(20_000, 2, seed=5)
    whole = initial_rows(np.arange(20_000), width=2, seed=5, scale=0.05)
    assert torch.equal(table.weight, torch.from_numpy(whole))


def test_ids_out_of_range_are_named() -> None:
    table = new_table()
    for ids in ([0, NUM_ROWS], [-1, 3]):
        with pytest.raises(IndexError, match="map unknown ones"):
            table(torch.tensor(ids))


def test_ids_that_are_not_integers_are_refused() -> None:
    with pytest.raises(TypeError, match="float32"):
        new_table()(torch.tensor([1.0]))


def test_no_ids_give_no_vectors_and_a_gradient_without_rows() -> None:
    table = new_table()
    vectors = table(torch.empty(0, 4, dtype=torch.long))
    assert vectors.shape == (0, 4, WIDTH)
    vectors.sum().backward()
    assert table.weight.grad is not None
    assert table.weight.grad.coalesce().values().shape == (0, WIDTH)


def test_a_table_without_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="0 x 3"):
        ShardedEmbedding(0, 3)


def test_a_loaded_state_waits_for_its_rows(tmp_path: Path) -> None:
    saved, loaded = new_table(), new_table(seed=1)
    model, folder = nn.Sequential(loaded, nn.Linear(WIDTH, 1)), tmp_path / "step-1"
    save_checkpoint(folder, nn.Sequential(saved, nn.Linear(WIDTH, 1)))
    assert set(load_file(folder / MODEL_FILE)) == {"0._extra_state", "1.weight", "1.bias"}
    save_rows(tmp_path, saved)
    model.load_state_dict(read_weights(folder))
    with pytest.raises(RuntimeError, match="load_rows"):
        model(torch.tensor([1]))
    load_rows(tmp_path, loaded)
    assert torch.equal(loaded(torch.tensor([1])), whole_table()[[1]])


def test_a_state_of_another_table_is_refused() -> None:
    with pytest.raises(ValueError, match=r"table of \[12, 3\]"):
        new_table().load_state_dict(ShardedEmbedding(12, WIDTH).state_dict())
    with pytest.raises(RuntimeError, match="_extra_state"):
        new_table().load_state_dict({})


def test_a_copy_is_cut_as_the_table_is_and_its_gradients_are_coalesced() -> None:
    table = ShardedEmbedding(5, 3)
    # One process has all rows; what stands on the parameter is that of one of two.
    setattr(table.weight, "row_shards", 2)  # noqa: B010
    table.size = 2
    copied = deepcopy(nn.ModuleList([table]))[0]
    assert isinstance(copied, ShardedEmbedding)
    assert copied.weight is not table.weight
    assert torch.equal(copied.weight, table.weight)
    assert getattr(copied.weight, "row_shards", None) == 2
    copied.size = 1
    copied(torch.tensor([1, 1, 4])).sum().backward()
    assert copied.weight.grad is not None
    assert copied.weight.grad.is_coalesced()
    assert table.weight.grad is None
