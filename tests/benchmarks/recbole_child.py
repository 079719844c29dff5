"""RecBole's SASRec in its own environment, driven by lines of JSON; imports nothing of this tree.

It is a program for the interpreter of `sasrec_recbole.recbole_python`, not a module of the tests:
RecBole 1.2.1 needs names that numpy 2 dropped, which are put back before it is imported.

Usage: recbole_child.py <folder with <name>.inter> <settings as JSON>
It says {"ready": true, ...}, then reads one command a line and answers each with one line:
{"do": "steps", "count": n} trains n batches; {"do": "fit", "seconds": s, "log": path} trains and
validates whole epochs until the seconds are over, and writes a line per epoch to the log.
"""

# pyright: reportMissingImports=false
import json
import logging
import os
import sys
import time
from pathlib import Path

import numpy as np

REMOVED = {
    "float_": np.float64,
    "complex_": np.complex128,
    "unicode_": np.str_,
    "bool8": np.bool_,
    "object0": np.object_,
    "float": float,
    "int": int,
    "bool": bool,
    "object": object,
}
for name, kind in REMOVED.items():
    if name not in vars(np):
        setattr(np, name, kind)

import torch  # noqa: E402
from recbole.config import Config  # noqa: E402
from recbole.data import create_dataset, data_preparation  # noqa: E402
from recbole.model.sequential_recommender import SASRec  # noqa: E402
from recbole.trainer import Trainer  # noqa: E402
from recbole.utils import init_seed  # noqa: E402

SETTINGS = {
    "USER_ID_FIELD": "user_id",
    "ITEM_ID_FIELD": "item_id",
    "TIME_FIELD": "timestamp",
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    "loss_type": "CE",
    "train_neg_sample_args": None,
    "MAX_ITEM_LIST_LENGTH": 50,
    "eval_args": {
        "split": {"LS": "valid_and_test"},
        "order": "TO",
        "mode": "full",
        "group_by": "user",
    },
    "repeatable": True,  # RecBole's sequential models know no other way
    "metrics": ["Recall", "NDCG"],
    "topk": [10],
    "valid_metric": "NDCG@10",
    "metric_decimal_place": 6,
    "use_gpu": False,
    "gpu_id": "",
    "show_progress": False,
    "save_dataset": False,
    "state": "ERROR",
}


class Rival:
    """Hold RecBole's model, data and trainer."""

    def __init__(self, folder: Path, settings: dict) -> None:
        """Read the folder and make the model; `settings` replace RecBole's defaults."""
        torch.set_num_threads(1)
        settings = {**SETTINGS, "data_path": str(folder.parent), **settings}
        settings["checkpoint_dir"] = str(folder / "saved")
        config = Config(model="SASRec", dataset=folder.name, config_dict=settings)
        init_seed(config["seed"], config["reproducibility"])
        dataset = create_dataset(config)
        self.train, self.valid, _ = data_preparation(config, dataset)
        self.model = SASRec(config, self.train.dataset)
        self.trainer = Trainer(config, self.model)
        self.batches = iter(self.train)

    def steps(self, count: int) -> dict:
        """Train `count` batches of one target a row; return targets and seconds."""
        self.model.train()
        targets, wall, cpu = 0, time.perf_counter(), time.process_time()
        for _ in range(count):
            batch = next(self.batches, None)
            if batch is None:
                self.batches = iter(self.train)
                batch = next(self.batches)
            self.trainer.optimizer.zero_grad()
            loss = self.model.calculate_loss(batch)
            loss.backward()
            self.trainer.optimizer.step()
            targets += len(batch)
        return {
            "targets": targets,
            "seconds": time.perf_counter() - wall,
            "cpu_seconds": time.process_time() - cpu,
        }

    def fit(self, seconds: float, log: Path) -> dict:
        """Train and validate epochs until the seconds are over; return the last line of the log."""
        started, cpu, epoch, line = time.perf_counter(), time.process_time(), 0, {}
        while time.perf_counter() - started < seconds:
            loss = self.trainer._train_epoch(self.train, epoch, show_progress=False)
            score, _ = self.trainer._valid_epoch(self.valid, show_progress=False)
            line = {
                "epoch": epoch,
                "seconds": time.perf_counter() - started,
                "cpu_seconds": time.process_time() - cpu,
                "train_loss": float(loss),
                "ndcg_10": float(score),
            }
            with log.open("a") as file:
                file.write(json.dumps(line) + "\n")
            epoch += 1
        return line


def main() -> None:
    """Answer commands until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    logging.disable(logging.WARNING)
    rival = Rival(Path(sys.argv[1]), json.loads(sys.argv[2]))
    ready = {"ready": True, "batches": len(rival.train), "torch": torch.__version__}
    print(json.dumps(ready), file=answers, flush=True)
    for text in sys.stdin:
        command = json.loads(text)
        if command["do"] == "steps":
            answer = rival.steps(command["count"])
        else:
            answer = rival.fit(command["seconds"], Path(command["log"]))
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
