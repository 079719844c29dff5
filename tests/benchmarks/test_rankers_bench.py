"""The training-speed bench in its short form: a small size, one round; and its FLOP floor."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.benchmarks.rankers import GOALS, measure, workload, write_trace
from tests.benchmarks.rankers_flops import SCHEMES, Size, floor_ratio, step_flops
from tests.benchmarks.rankers_gpu import LARGE, peak_flops
from tests.benchmarks.rankers_step import Stepper, Workload

SMALL = Workload(
    name="small",
    size=Size(width=32, layers=2, heads=2, head_width=16),
    events=16,
    batch=3,
)


def test_every_scheme_has_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    figures = measure(SMALL, schemes=SCHEMES, rounds=2)
    for scheme in SCHEMES:
        stem = f"small_16_{scheme}"
        passes, step = figures[f"{stem}_passes_seconds"], figures[f"{stem}_step_seconds"]
        assert passes is not None and step is not None
        assert 0 < passes < step
        assert figures[f"{stem}_events_per_second"] == pytest.approx(48 / step)
        assert figures[f"{stem}_epoch_seconds"] == pytest.approx(500_000 / 48 * step)
        tokens = 96 if scheme == "interleaved" else 48
        assert figures[f"{stem}_tokens_per_second"] == pytest.approx(tokens / step)
    assert figures["small_16_interleaved"] == 1.0
    assert len([line for line in capsys.readouterr().out.splitlines() if "attn_" in line]) == 3


def test_goals_name_figures_that_the_wide_workload_gives() -> None:
    load = workload("wide", events=1024)
    assert (load.size.width, load.size.layers, load.size.heads, load.batch) == (256, 12, 8, 2)
    names = {f"{load.name}_{load.events}_{scheme}" for scheme in SCHEMES}
    assert {goal.figure for goal in GOALS} - names == {"gpu_flops_utilisation"}
    with pytest.raises(ValueError, match="wide or default"):
        workload("narrow", events=50)


def test_a_trace_holds_the_schemes(tmp_path: Path) -> None:
    write_trace(SMALL, schemes=("interleaved", "attn_mvp"), path=tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    names = {str(event.get("name")) for event in events}
    assert {"scheme: interleaved", "scheme: attn_mvp"} <= names


def test_floor_by_hand() -> None:
    size = Size(width=256, layers=12, heads=8, head_width=256)
    # forward, per event: 24 x 65536 x 12 and 4 x 256 x 12 x 511.5; shared 18 x 65536 + ...
    linear, attention = step_flops("attn_mvp_without_lfa", size, events=1024)
    assert linear == 3 * (18_874_368 + (8 + 2 + 8) * 65_536 + 4 * 65_536 + 3 * 512 * 2)
    assert attention == 3 * 6_285_312
    assert step_flops("interleaved", size, events=1024)[1] == 3 * 2 * 12_288 * 1024.5
    assert floor_ratio("attn_mvp_without_lfa", size, events=1024) == pytest.approx(
        0.41669, abs=1e-5
    )


@pytest.mark.parametrize("scheme", SCHEMES)
def test_products_of_the_floor_are_those_that_torch_counts(scheme: str) -> None:
    stepper = Stepper(scheme, SMALL)
    with FlopCounterMode(display=False) as counter:
        stepper.step()
    counted = counter.get_flop_counts()["Global"]
    products = sum(n for op, n in counted.items() if "attention" not in str(op))
    expected = step_flops(scheme, SMALL.size, events=SMALL.events)[0] * 48
    assert products == pytest.approx(expected, rel=0.02)


def test_utilisation_knows_its_cards_and_its_size() -> None:
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989.4e12
    assert peak_flops("Some Card") is None
    assert (LARGE.size.width, LARGE.size.layers, LARGE.events) == (1024, 8, 4096)
    load = replace(SMALL, is_narrow=True)
    assert Stepper("attn_mvp", load).step().whole > 0 or not torch.cuda.is_available()
