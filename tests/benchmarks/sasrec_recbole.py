"""RecBole 1.2.1 in an environment of its own, beside the repository's: made once, then driven."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

ENVIRONMENT = Path.home() / ".cache" / "ranklake" / "recbole-venv"
PACKAGES = ("recbole==1.2.1", "torch==2.15.0", "numpy>=2,<3", "pandas<3", "psutil")
CHILD = Path(__file__).with_name("recbole_child.py")


def recbole_python() -> Path:
    """Return the interpreter of RecBole's environment, which is made if it is not there.

    Raises:
        subprocess.CalledProcessError: If it could not be made.
    """
    python = ENVIRONMENT / "bin" / "python"
    if not (ENVIRONMENT / "ready").exists():
        uv = Path(sys.executable).with_name("uv")
        print(f"making {ENVIRONMENT} with {', '.join(PACKAGES)}", file=sys.stderr, flush=True)
        subprocess.run(
            [uv, "venv", "-q", "--clear", "--python", sys.executable, ENVIRONMENT], check=True
        )
        subprocess.run([uv, "pip", "install", "-q", "--python", python, *PACKAGES], check=True)
        (ENVIRONMENT / "ready").touch()
    return python


def write_interactions(folder: Path, sequences: Sequence[NDArray[np.int64]]) -> None:
    """Write `<folder>/<its name>.inter`, the place in the sequence as the time."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{folder.name}.inter").open("w") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        for user, items in enumerate(sequences):
            file.writelines(f"{user}\t{item}\t{place}\n" for place, item in enumerate(items))


class RecBole:
    """Drive RecBole's SASRec in its own process, as a context manager."""

    def __init__(self, folder: Path, *, settings: dict[str, Any]) -> None:
        """Start it on a folder of `write_interactions`.

        Args:
            folder: The data.
            settings: RecBole's settings that differ from its defaults.
        """
        self._process = subprocess.Popen(
            [recbole_python(), CHILD, folder, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=folder,  # it writes logs where it stands
        )
        self.about = self._answer()

    def ask(self, **command: Any) -> dict[str, Any]:
        """Give one command and wait for its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"RecBole ended with code {self._process.wait()}; run {CHILD} alone")
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process."""
        self._process.terminate()
        self._process.communicate()
