"""SASRec's benchmarks in short forms: the file's reader, the ledger, the race's own rivals."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ml.retrieval.leave_one_out import leave_one_out
from ml.retrieval.sasrec.batches import training_windows
from ml.retrieval.sasrec.model import SasRecConfig
from ml.retrieval.sasrec.recipes import default, toy
from tests.benchmarks.beauty import LEDGER, read_ledger, results_of_seeds, run_key, summary
from tests.benchmarks.beauty_data import read_sequences
from tests.benchmarks.module_hash import module_hash
from tests.benchmarks.sasrec import endless, figures_of, synthetic_sequences
from tests.benchmarks.sasrec_quality import time_to
from tests.benchmarks.sasrec_recbole import write_interactions
from tests.benchmarks.sasrec_rivals import OurSteps, PlainSteps, Speed, timed

LINES = "u1 a b c d\t0 86400 0 0\nu2 b a e\t0 0 0\nu3 e d a b\t0 0 0 0\n"


@pytest.fixture
def beauty(tmp_path: Path) -> Path:
    file = tmp_path / "Beauty_timedelta.txt"
    file.write_text(LINES)
    return file


def test_a_published_file_is_split_leaving_one_out(beauty: Path) -> None:
    sequences, num_items = read_sequences(beauty)
    assert num_items == 5
    assert [s.tolist() for s in sequences] == [[0, 1, 2, 3], [1, 0, 4], [4, 3, 0, 1]]
    split = leave_one_out(sequences)
    assert [s.tolist() for s in split.train] == [[0, 1], [1], [4, 3]]
    assert split.validation.targets.tolist() == [2, 0, 0]
    assert split.test.targets.tolist() == [3, 4, 1]
    beauty.write_text("u1\t0\n")
    with pytest.raises(ValueError, match=r"line 1 .* has no items"):
        read_sequences(beauty)


def test_a_finished_seed_is_not_run_again(beauty: Path, tmp_path: Path) -> None:
    recipe = replace(toy(), training=replace(toy().training, epochs=1))
    ledger = tmp_path / "results.jsonl"
    first = results_of_seeds([0, 1], recipe=recipe, ledger=ledger, file=beauty)
    before = ledger.read_bytes()
    again = results_of_seeds([1, 0, 2], recipe=recipe, ledger=ledger, file=beauty, run=False)
    assert ledger.read_bytes() == before and len(before.splitlines()) == 2
    assert again == [first[1], first[0]]
    assert len(read_ledger(ledger)) == 2 and read_ledger(tmp_path / "none") == {}


def test_a_key_depends_on_recipe_seed_data_and_code(beauty: Path, tmp_path: Path) -> None:
    recipe = toy()
    key = run_key(recipe, beauty)
    assert run_key(toy(), beauty) == key
    assert run_key(replace(recipe, training=replace(recipe.training, seed=1)), beauty) != key
    assert run_key(replace(recipe, batch_sequences=64), beauty) != key
    beauty.write_text(LINES + "u4 a b c\t0 0 0\n")
    assert run_key(recipe, beauty) != key
    code = tmp_path / "code.py"
    hashes = []
    for text in ('"""A."""\nx = 1\n', '"""B."""\n\nx = 1  # one\n', "x = 2\n"):
        code.write_text(text)
        hashes.append(module_hash([code]))
    assert hashes[0] == hashes[1] != hashes[2]


def test_the_summary_is_a_mean_with_the_interval_of_student() -> None:
    results = [
        {"key": "a", "seed": n, "test_ndcg_10": x, "test_recall_10": 0.08}
        for n, x in enumerate((0.04, 0.05, 0.06))
    ]
    figures = summary(results)
    assert figures["test_ndcg_10"] == pytest.approx(0.05)
    # 4.3027 standard errors of 0.01 / sqrt(3) either way.
    assert figures["test_ndcg_10_low"] == pytest.approx(0.05 - 0.024841, abs=1e-5)
    assert figures["test_ndcg_10_high"] == pytest.approx(0.05 + 0.024841, abs=1e-5)
    assert summary([])["test_recall_10"] is None


def test_the_ledger_holds_the_recipe_that_is_the_default() -> None:
    runs = read_ledger(LEDGER)
    assert sorted(run["seed"] for run in runs.values()) == sorted(
        {run["seed"] for run in runs.values()}
    )
    for run in runs.values():
        assert run["epochs"] <= default().training.epochs
        assert 0 < run["test_ndcg_10"] < run["test_recall_10"] < 1
        assert run["test_ndcg_10"] <= run["unseen_test_ndcg_10"]


def test_both_rivals_of_the_race_learn_and_count_the_same_targets() -> None:
    config = SasRecConfig(width=16, length=10)
    sequences = synthetic_sequences(users=12, items=30, length=10)
    assert {len(sequence) for sequence in sequences} == {13}
    windows = training_windows(leave_one_out(sequences).train, length=10)
    batches = endless(windows, size=5)
    chosen = [next(batches) for _ in range(4)]
    assert len({window.tobytes() for batch in chosen[:2] for window in batch}) == 10
    for rival in (OurSteps(config, num_items=30), PlainSteps(config, num_items=30)):
        speed = timed(rival, chosen)
        assert speed.targets == 4 * 5 * 10 and speed.cpu_seconds > 0


def test_ratios_are_of_rounds_and_in_their_median() -> None:
    def speeds(*targets: int) -> list[Speed]:
        return [Speed(targets=n, seconds=2.0, cpu_seconds=1.0) for n in targets]

    figures = figures_of({"ours": speeds(40, 60, 90), "plain": speeds(20, 20, 20)}, prefix="x")
    assert figures["x_ours_per_s"] == 30 and figures["x_ours_cpu_per_s"] == 60
    assert figures["x_ours_per_s_min"] == 20 and figures["x_over_plain"] == 3.0
    assert "x_over_ours" not in figures


def test_time_to_a_quality_ends_when_it_is_there() -> None:
    draw = np.random.default_rng(0)
    sequences = [(start + np.arange(8)) % 20 for start in draw.integers(0, 20, 100)]
    split = leave_one_out(sequences)
    recipe = replace(toy(), training=replace(toy().training, epochs=3, patience=3))
    reached = time_to(0.01, split, num_items=20, recipe=recipe)
    assert reached["epochs"] == 1 and (reached["cpu_minutes"] or 0) > 0
    never = time_to(1.1, split, num_items=20, recipe=recipe)
    assert never["epochs"] == 3 and never["minutes"] is None and (never["ndcg_10"] or 0) > 0


def test_recbole_reads_the_place_as_the_time(tmp_path: Path) -> None:
    write_interactions(tmp_path / "toy", [np.array([5, 3]), np.array([3])])
    assert (tmp_path / "toy" / "toy.inter").read_text().splitlines() == [
        "user_id:token\titem_id:token\ttimestamp:float",
        "0\t5\t0",
        "0\t3\t1",
        "1\t3\t0",
    ]
