"""The exam as one folder that every fit reads, and the version of its data."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from ml.features import FeatureSpec, SequenceData
from ml.item_table import ItemTable
from ml.ranking.contenders import Exam

FITTED_SPLITS = ("train", "validation")
_DIGITS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class ExamFolder:
    """Name a folder that holds an exam and, apart, its test split."""

    path: Path

    @property
    def work(self) -> Path:
        """Return the folder of the fits' own folders."""
        return self.path / "work"

    def save(
        self, splits: Mapping[str, SequenceData], *, items: ItemTable, spec: FeatureSpec
    ) -> "ExamFolder":
        """Write the sequences of train, validation and test, the items and the spec.

        What a fit that was killed left in its own folder is removed.
        """
        shutil.rmtree(self.work, ignore_errors=True)
        self.path.mkdir(parents=True, exist_ok=True)
        for name in (*FITTED_SPLITS, "test"):
            splits[name].save(self.path / f"{name}.npz")
        items.save(self.path / "items.npz")
        (self.path / "spec.json").write_text(json.dumps(asdict(spec)))
        return self

    def spec(self) -> FeatureSpec:
        """Read the vocabulary sizes."""
        found = json.loads((self.path / "spec.json").read_text())
        lists = {name: tuple(value) for name, value in found.items() if isinstance(value, list)}
        return FeatureSpec(**(found | lists))

    def exam(self) -> Exam:
        """Read what a contender may fit on: the test split is not in it."""
        return Exam(
            splits={name: self._split(name) for name in FITTED_SPLITS},
            items=ItemTable.load(self.path / "items.npz"),
            spec=self.spec(),
        )

    def open_test(self) -> SequenceData:
        """Read the test split."""
        return self._split("test")

    def _split(self, name: str) -> SequenceData:
        return SequenceData.load(self.path / f"{name}.npz")


def data_version(splits: Mapping[str, SequenceData], *, items: ItemTable, spec: FeatureSpec) -> str:
    """Return a hash of an exam's numbers, the same wherever the same tables were made.

    Floats are left out: they follow from the rest, and their last digit from the processor.
    """
    digest = hashlib.sha256(json.dumps(asdict(spec), sort_keys=True).encode())
    for name in (*FITTED_SPLITS, "test"):
        _add(digest, name, splits[name])
    _add(digest, "items", items)
    return digest.hexdigest()[:_DIGITS]


def _add(digest: Any, name: str, holder: SequenceData | ItemTable) -> None:
    for field in fields(holder):
        array = np.asarray(getattr(holder, field.name))
        digest.update(f"\0{name}.{field.name}{array.shape}\0".encode())
        if array.dtype.kind in "iub":
            digest.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
        elif array.dtype.kind == "U":
            digest.update("\0".join(array.tolist()).encode())
