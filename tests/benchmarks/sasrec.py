"""SASRec's training speed, targets per second, beside a plain encoder and RecBole's.

Width 64, 2 layers, 2 heads, length 50, 256 sequences a step, the exact softmax over all items,
dropout 0.5, one thread each. A step is batch making, forward, backward and AdamW. On Amazon
Beauty's training part, and on a synthetic set of 10,000 items whose sequences are all 50 targets
long, where packing has nothing to save. The rivals take turns, round by round; the ratio is the
median over rounds. The plain encoder (`sasrec_plain`) has the same loss to 1e-5 with the same
weights (tests/ml/test_sasrec.py); RecBole learns one target per row. Beside seconds on the wall
stand those of the processor, which other work on the machine disturbs less.

With --quality: the best validation NDCG@10 of Beauty that RecBole reaches in 60 minutes (batches
of 256, else its defaults), and how long ours takes to the same, both pinned to one core with one
thread, validation included. --recbole-log=<file> takes RecBole's epochs from a finished run, a
line of JSON each: recbole_beauty_epochs.jsonl is one, on a machine that had other work, so that
its hour was 20 minutes of the processor.

With --compile also ours with torch.compile around the encoder.

Run: python -m tests.benchmarks.sasrec [--rounds=5] [--quality [--recbole-log=<file>]] [--compile]
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median

import numpy as np
import torch

from ml.retrieval.leave_one_out import leave_one_out
from ml.retrieval.sasrec.batches import training_windows
from ml.retrieval.sasrec.model import SasRecConfig
from tests.benchmarks.beauty_data import beauty_file, read_sequences
from tests.benchmarks.result_line import Goal, print_result
from tests.benchmarks.sasrec_quality import QUALITY_GOALS, quality
from tests.benchmarks.sasrec_recbole import RecBole, write_interactions
from tests.benchmarks.sasrec_rivals import OurSteps, PlainSteps, Speed, Windows, timed

GOALS = (
    Goal(figure="beauty_over_plain", op=">=", limit=2.0),
    Goal(figure="synthetic_over_plain", op=">=", limit=2.0),
)
CONFIG = SasRecConfig(  # dropout wherever the rivals have it
    width=64, layers=2, heads=2, length=50, residual_dropout=0.5, attention_dropout=0.5
)
BATCH = 256
SYNTHETIC_ITEMS = 10_000
BEAUTY_STEPS = {"ours": 8, "compiled": 8, "plain": 1, "recbole": 4}  # a second or two each
SYNTHETIC_STEPS = {"ours": 1, "compiled": 1, "plain": 1, "recbole": 4}
Rounds = dict[str, list[Speed]]


def synthetic_sequences(*, users: int, items: int, length: int) -> list[np.ndarray]:
    """Return sequences of `length` + 3 items, the popular ones more often; two are held out."""
    draw = np.random.default_rng(0)
    popularity = 1 / np.arange(1, items + 1)
    drawn = draw.choice(items, size=(users, length + 3), p=popularity / popularity.sum())
    return list(drawn)


def endless(windows: Windows, *, size: int) -> Iterator[Windows]:
    """Yield batches of windows for ever, shuffled anew each time through."""
    draw = np.random.default_rng(0)
    while True:
        order = draw.permutation(len(windows))
        for start in range(0, len(order) - size + 1, size):
            yield [windows[place] for place in order[start : start + size]]


def race(
    sequences: list[np.ndarray],
    *,
    num_items: int,
    rounds: int,
    counts: Mapping[str, int],
    compiled: bool = False,
) -> Rounds:
    """Let the rivals train in turns on the training part of the sequences.

    Args:
        sequences: Items of each user; the last two are held out.
        num_items: Size of the catalogue.
        rounds: Turns of each, after one to warm up.
        counts: Steps of a turn, by rival.
        compiled: Whether ours with torch.compile takes part.
    """
    windows = training_windows(leave_one_out(sequences).train, length=CONFIG.length)
    batches = endless(windows, size=min(BATCH, len(windows)))
    steps = {
        "ours": OurSteps(CONFIG, num_items=num_items),
        "plain": PlainSteps(CONFIG, num_items=num_items),
    }
    if compiled:
        steps["compiled"] = OurSteps(CONFIG, num_items=num_items)
        steps["compiled"].model.encoder.compile(dynamic=True)
    found: Rounds = {name: [] for name in (*steps, "recbole")}
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "sequences"
        write_interactions(folder, sequences)
        with RecBole(folder, settings={"train_batch_size": BATCH}) as recbole:
            for turn in range(rounds + 1):
                for name, step in steps.items():
                    speed = timed(step, [next(batches) for _ in range(counts[name])])
                    found[name] += [speed] if turn else []
                speed = Speed(**recbole.ask(do="steps", count=counts["recbole"]))
                found["recbole"] += [speed] if turn else []
    return found


def figures_of(found: Rounds, *, prefix: str) -> dict[str, float | None]:
    """Return targets per second of each rival, median and worst, and ours over theirs."""
    figures: dict[str, float | None] = {}
    for kind, seconds in (("", "seconds"), ("_cpu", "cpu_seconds")):
        rates = {
            name: [speed.targets / getattr(speed, seconds) for speed in speeds]
            for name, speeds in found.items()
        }
        for name, values in rates.items():
            figures[f"{prefix}_{name}{kind}_per_s"] = median(values)
            figures[f"{prefix}_{name}{kind}_per_s_min"] = min(values)
            if name != "ours":
                pairs = zip(rates["ours"], values, strict=True)
                figures[f"{prefix}_over_{name}{kind}"] = median(a / b for a, b in pairs)
    return figures


def main() -> int:
    """Race on both sets, or measure the time to RecBole's quality."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--quality", action="store_true")
    parser.add_argument("--recbole-log", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print((__doc__ or "").strip(), end="\n\n")
    sequences, num_items = read_sequences(beauty_file())
    if arguments.quality:
        figures = quality(sequences, num_items=num_items, recbole_log=arguments.recbole_log)
        return 0 if print_result("sasrec-quality", figures, goals=QUALITY_GOALS) else 1
    synthetic = synthetic_sequences(users=2048, items=SYNTHETIC_ITEMS, length=CONFIG.length)
    figures: dict[str, float | None] = {}
    for name, data, items, counts in (
        ("beauty", sequences, num_items, BEAUTY_STEPS),
        ("synthetic", synthetic, SYNTHETIC_ITEMS, SYNTHETIC_STEPS),
    ):
        found = race(
            data,
            num_items=items,
            rounds=arguments.rounds,
            counts=counts,
            compiled=arguments.compile,
        )
        figures |= figures_of(found, prefix=name)
    return 0 if print_result("sasrec", figures, goals=GOALS) else 1


if __name__ == "__main__":
    sys.exit(main())
