"""The HDET bench in its short form: a tiny feed, equal parts for all, a ledger that is resumed."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from ml.features import SequenceData
from ml.ranking.contenders import Exam
from ml.ranking.leaderboard.exam_folder import ExamFolder
from ml.ranking.leaderboard.modules import imported_modules
from ml.ranking.sequence_ranker.recipes import RankerConfig, attn_mvp
from ml.training.hdet.controller import HdetConfig
from tests.benchmarks.hdet import Session, chosen_methods, measure, print_plan
from tests.benchmarks.hdet_board import run_start, starts_of
from tests.benchmarks.hdet_converge import ConvergeTiming, converge_figures
from tests.benchmarks.hdet_methods import (
    BEST_RATES,
    REPLICAS_CODE,
    RUN_BY_ALL,
    SINGLE_CODE,
    methods,
)
from tests.benchmarks.hdet_plan import Plan
from tests.benchmarks.hdet_replicas import Meeting, fit_replicas
from tests.benchmarks.hdet_schedule_free import ScheduleFreeAdamW
from tests.benchmarks.hdet_single import SingleRun, fit_single
from tests.benchmarks.hdet_steps import why_missed
from tests.benchmarks.hdet_table import Row, best_of_sweeps, figures_of, source_goals
from tests.benchmarks.hdet_task import Task
from tests.ml.sequence_examples import feature_spec, item_table, sequences

RATE = 1e-2
SHORT = ("one_cycle", "one_cycle_longer", "hdet_shared_auto", "hdet_local_auto", "constant")


def _recipe() -> RankerConfig:
    recipe = attn_mvp()
    model = replace(recipe.model, width=8, head_width=8, layers=1)
    return replace(recipe, model=model)


def _plan() -> Plan:
    return Plan(recipe=_recipe(), replica_events=40, probe_events=60, steps=12, sync_steps=2)


def _split(name: str, seed: int) -> SequenceData:
    return sequences([9] * 32, split=name, seed=seed)


@pytest.fixture
def task() -> Task:
    exam = Exam(
        splits={"train": _split("train", 0), "validation": _split("validation", 1)},
        items=item_table(),
        spec=feature_spec(),
    )
    return Task(source="simulated", data="d", exam=exam, test=_split("test", 2), plan=_plan())


def _session(folder: Path) -> Session:
    return Session(ledgers=folder / "ledgers", plots=folder / "plots")


def test_the_plan_reaches_as_far_as_the_issue_asks() -> None:
    plan = Plan()
    assert plan.gain * plan.spread_fraction * (plan.steps // plan.sync_steps) >= 4.159
    with pytest.raises(ValueError, match="2 ln 8"):
        replace(plan, sync_steps=plan.steps // 2)


def test_a_step_has_the_same_parts_for_replicas_and_for_a_single_run(task: Task) -> None:
    # Without spread and dropout, shared gradients make every replica the single run.
    recipe = task.plan.recipe
    plan = replace(
        task.plan, recipe=replace(recipe, model=replace(recipe.model, dropout_fraction=0.0))
    )
    task = replace(task, plan=plan)
    config = HdetConfig(spread_fraction=0.0, sync_steps=3, auto_lr=False)
    model, replicated = fit_replicas(task, config, rate=RATE, seed=3, has_probe=False)
    models, single = fit_single(task, SingleRun(schedule="one_cycle"), rate=RATE, seed=3)
    assert replicated.steps == single.steps == 12
    for ours, theirs in zip(model.parameters(), models["last"].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["hdet_shared_auto", "hdet_local_auto", "hdet_published"])
def test_replicas_meet_and_end_with_what_the_report_says(task: Task, name: str) -> None:
    method = next(m for m in methods(task.plan) if m.name == name)
    assert isinstance(method.run, HdetConfig)
    fits = [
        fit_replicas(task, method.run, rate=RATE, seed=0, has_probe=method.has_probe)
        for _ in range(2)
    ]
    (first, fit), (second, again) = fits
    assert [sync["step"] for sync in fit.trace] == [2, 4, 6, 8, 10, 12]
    rates = fit.trace[0]["rates"]
    spread = method.run.spread_fraction
    assert max(r[0] for r in rates) / min(r[0] for r in rates) == pytest.approx(
        (1 + spread) / (1 - spread), rel=1e-2
    )
    assert (fit.probe_seconds > 0) == method.has_probe
    assert fit.trace == again.trace
    for ours, theirs in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", ["one_cycle", "hdet_shared", "hdet_local_auto"])
def test_a_diverging_start_is_stopped_by_a_rule(task: Task, name: str) -> None:
    method = next(m for m in methods(task.plan) if m.name == name)
    [start] = starts_of(task, [replace(method, starts=(0,), seeds=(0,))], rates=[1e30])
    fit = run_start(task, start, split="test")
    assert fit.stopped is not None
    assert fit.steps < task.plan.steps
    assert fit.entropies == {}


def test_a_bad_entropy_counts_as_diverged() -> None:
    assert why_missed(1.06) == "NE 1.060 is above 1.05"
    assert why_missed(None) == "NE is not finite"
    assert why_missed(1.04) is None


def test_one_replica_that_fails_ends_the_wait_of_the_others() -> None:
    meeting = Meeting(3)

    def run(rank: int) -> float:
        if rank == 1:
            raise FloatingPointError("all replicas are lost")
        return float(meeting.members[rank].sum(torch.ones(1)))

    with pytest.raises(FloatingPointError, match="all replicas"):
        meeting.together(run)
    meeting.close()


def test_schedule_free_steps_are_those_of_the_paper() -> None:
    # Loss y^2 / 2 from 1 with decay 0.5: two steps by hand. The gradient's root mean square with
    # bias correction is |g| at step 1, so z moves by lr (1 + decay x y).
    parameter = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    groups = [{"params": [parameter], "weight_decay": 0.5}]
    optimizer = ScheduleFreeAdamW(groups, lr=0.1, betas=(0.9, 0.99), eps=0.0)
    z, x, y, square, squares = 1.0, 1.0, 1.0, 0.0, 0.0
    for step in (1, 2, 3):
        optimizer.zero_grad()
        (parameter**2 / 2).sum().backward()
        optimizer.step()
        square = 0.99 * square + 0.01 * y * y
        rate = 0.1 * (1 - 0.99**step) ** 0.5
        z -= rate * (y / square**0.5 + 0.5 * y)
        squares += rate**2
        x += rate**2 / squares * (z - x)
        y = 0.1 * z + 0.9 * x
        assert parameter.item() == pytest.approx(y, rel=1e-12)
    optimizer.use_average()
    assert parameter.item() == pytest.approx(x, rel=1e-12)


def test_averages_are_of_the_steps_that_they_name(task: Task) -> None:
    models, _ = fit_single(task, SingleRun(schedule="constant"), rate=RATE, seed=0)
    assert set(models) == {"last", "ema", "swa"}
    last, ema, swa = (next(iter(m.parameters())) for m in models.values())
    assert not torch.equal(last, ema) and not torch.equal(last, swa)


def test_the_key_is_of_the_code_that_runs(task: Task) -> None:
    known = {method.name: method for method in methods(task.plan)}
    cycle, shared = known["one_cycle"], known["hdet_shared"]
    state = cycle.state(task.plan, rate=1e-3)
    assert state == cycle.state(task.plan, rate=1e-3)
    assert state != cycle.state(task.plan, rate=2e-3)
    assert state != cycle.state(replace(task.plan, steps=14), rate=1e-3)
    assert shared.state(task.plan, rate=1e-3) != known["hdet_local"].state(task.plan, rate=1e-3)
    assert cycle.state(replace(task.plan, probe_events=80), rate=1e-3) == state
    probed, longer = known["hdet_shared_auto"], known["one_cycle_longer"]
    for method in (probed, longer):
        other = method.state(replace(task.plan, probe_events=800), rate=1e-3)
        assert method.state(task.plan, rate=1e-3) != other
    root = Path(__file__).parents[2]
    for module, code in (("hdet_single", SINGLE_CODE), ("hdet_replicas", REPLICAS_CODE)):
        imported = set(imported_modules(f"tests.benchmarks.{module}", root=root))
        assert imported - {"tests.benchmarks.hdet_plan"} == {
            name for name in code if name.startswith("tests.")
        }
    read = {name for m in RUN_BY_ALL for name in imported_modules(m, root=root)}
    assert "ml.training.loop" not in read
    assert not any(name.startswith("ml.training.hdet") for name in read)
    assert "ml.layers.bag_embedding" in read


def test_short_form_fits_once_and_judges_every_start(
    task: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compared = [
        replace(method, starts=(0, 3) if method.name == "one_cycle" else (3,))
        for method in chosen_methods(task.plan, names=None, seeds=1)
        if 3 in method.starts and method.name in SHORT
    ]
    best = BEST_RATES["simulated"]
    figures = measure(task, _session(tmp_path), compared=compared, best=best)
    shown = capsys.readouterr().out
    assert shown.count(" seed 0: ") == len(compared) + 1
    assert figures["simulated_fits"] == len(compared) + 1
    assert figures["simulated_fits_missing"] == 0.0
    for method in compared:
        for name in method.rows.values():
            assert any(line.startswith(f"{name} ") for line in shown.splitlines()), name
    assert figures["simulated_sweep_best_ne"] is not None
    for goal in source_goals("simulated"):
        assert figures[goal.figure] is not None, goal.figure
    assert sorted(path.name for path in (tmp_path / "plots").glob("*.svg")) == [
        "simulated_hdet_local_auto.svg",
        "simulated_hdet_shared_auto.svg",
    ]
    print_plan([task], _session(tmp_path), compared=compared)
    assert f"simulated: 0 of {len(compared) + 1} fits to do" in capsys.readouterr().out
    assert measure(task, _session(tmp_path), compared=compared, best=best) == figures
    assert " seed 0: " not in capsys.readouterr().out  # what a fit that was run prints


def _row(name: str, place: int, entropies: list[float], missed: dict[int, str]) -> Row:
    return Row(
        name=name,
        place=place,
        rate=1.0,
        wanted=(0, 1),
        entropies=dict(enumerate(entropies)),
        missed=missed,
        is_hdet=name.startswith("hdet"),
    )


def test_starts_are_held_to_the_better_sweep_and_a_diverged_one_is_missed() -> None:
    rows = [
        _row("one_cycle", 0, [0.81, 0.83], {}),
        _row("one_cycle", 1, [0.80, 0.82], {}),
        _row("one_cycle", 2, [0.85], {1: "NE is not finite"}),
        _row("one_cycle_longer", 1, [0.80, 0.81], {}),
        _row("hdet_shared_auto", 0, [0.800, 0.812], {}),
        _row("hdet_shared_auto", 1, [0.810, 0.813], {}),
        _row("hdet_local_auto", 0, [0.80], {1: "NE 2.000 is above 1.05"}),
    ]
    best = best_of_sweeps(rows)
    assert best is not None and best is rows[3]
    gap, half = rows[4].less(best)
    assert gap == pytest.approx(0.001)
    assert half == pytest.approx(12.706 * 0.001, rel=1e-3)  # t of one degree of freedom
    figures = figures_of("s", rows)
    assert figures["s_hdet_shared_auto_starts_missed"] == 1.0  # 0.0065 over the best
    assert figures["s_hdet_local_auto_starts_missed"] == 1.0
    assert figures["s_best_hdet_over_sweep"] == pytest.approx(0.001)
    assert figures["s_sweep_worst_over_best"] == pytest.approx(0.82 / 0.81 - 1)
    missing = figures_of("s", [*rows, _row("hdet_local_auto", 1, [0.8], {})])
    assert missing["s_hdet_local_auto_starts_missed"] is None
    assert missing["s_best_hdet_over_sweep"] is None


def test_a_spent_budget_begins_no_fit_and_leaves_figures_out(task: Task, tmp_path: Path) -> None:
    session = replace(_session(tmp_path), deadline=0.0)
    compared = chosen_methods(task.plan, names=["one_cycle", "hdet_shared_auto"], seeds=1)
    figures = measure(task, session, compared=compared, best=RATE)
    assert figures["simulated_fits_missing"] == 14.0
    assert all(figures[goal.figure] is None for goal in source_goals("simulated"))


def test_two_processes_time_the_converge(task: Task, tmp_path: Path) -> None:
    folder = ExamFolder(path=tmp_path / "exam").save(
        {**task.exam.splits, "test": task.test}, items=task.exam.items, spec=task.exam.spec
    )
    figures = converge_figures(ConvergeTiming(folder=folder.path, sync_steps=2, rounds=2))
    shares = [figures[f"converge_share_{mode}"] for mode in ("shared", "local")]
    assert figures["converge_share"] == max(share for share in shares if share is not None) > 0
