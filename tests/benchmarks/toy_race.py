"""Train several small rankers on one toy, step by step in turn."""

import argparse
import time
from collections.abc import Mapping
from typing import Any

import torch

from tests.ml.planted_users import ToyTrainer, ToyTraining, Users, late_entropy


def race(
    users: Users, training: ToyTraining, *, variants: Mapping[str, Mapping[str, Any]]
) -> dict[str, float]:
    """Return each variant's late entropy and the seconds of its steps.

    Args:
        users: What draws the users.
        training: Steps and learning rate, the same for all.
        variants: Parts of the ranker by the variant's name.
    """
    trainers = {name: ToyTrainer(users, training, **dict(c)) for name, c in variants.items()}
    seconds = dict.fromkeys(trainers, 0.0)
    for _ in range(training.steps):
        for name, trainer in trainers.items():
            started = time.perf_counter()
            trainer.step()
            seconds[name] += time.perf_counter() - started
    entropies = {name: late_entropy(t.model.eval(), users) for name, t in trainers.items()}
    figures = {f"ne_{name}": entropy for name, entropy in entropies.items()}
    return figures | {f"seconds_{name}": total for name, total in seconds.items()}


def toy_arguments(name: str, *, steps: int, rows: int) -> ToyTraining:
    """Read a toy's command line and set the threads."""
    parser = argparse.ArgumentParser(prog=name)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--rows", type=int, default=rows)
    parser.add_argument("--rate", type=float, default=5e-3, help="peak learning rate")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    return ToyTraining(steps=chosen.steps, rows=chosen.rows, learning_rate=chosen.rate)
