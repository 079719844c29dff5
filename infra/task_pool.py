"""Independent functions on one Ray session, a few at a time, each on one processor and thread."""

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from infra.cluster import ClusterConfig, ray_instance

_THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
_LONGEST_ERROR = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskFailure:
    """Say why a task failed.

    Attributes:
        reason: The error's type and message in one line, without folders.
        text: The whole traceback.
        raised: Whether the function raised it; else its process was lost, for example killed.
    """

    reason: str
    text: str
    raised: bool


class TaskPool:
    """Run calls of one importable function; leaving the block stops what still runs."""

    def __init__(
        self, function: Callable[..., Any], *, config: ClusterConfig | None = None
    ) -> None:
        """Start Ray unless it runs.

        Args:
            function: Importable by the workers; its arguments and results are plain values.
            config: What Ray may use; ignored when an instance runs already.
        """
        self._at_once = ray_instance(config).cpus
        import ray  # after the instance: what it sets in the environment is read at import

        self._function = ray.remote(function).options(
            num_cpus=1, max_retries=0, runtime_env={"env_vars": _THREADS}
        )
        self._running: dict[Any, Any] = {}

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        """Stop what still runs."""
        import ray

        for reference in self._running:
            with contextlib.suppress(Exception):
                ray.cancel(reference, force=True)
        self._running.clear()

    @property
    def has_room(self) -> bool:
        """Return whether another task can start at once."""
        return len(self._running) < self._at_once

    @property
    def is_idle(self) -> bool:
        """Return whether nothing runs."""
        return not self._running

    def start(self, name: Any, *arguments: Any) -> None:
        """Start a call that `wait` will name."""
        self._running[self._function.remote(*arguments)] = name

    def wait(self) -> tuple[Any, Any]:
        """Wait until a call ends; return its name and its result, or a `TaskFailure`."""
        import ray
        from ray.exceptions import RayError

        ended, _ = ray.wait(list(self._running), num_returns=1)
        name = self._running.pop(ended[0])
        try:
            return name, ray.get(ended[0])
        except RayError as error:
            return name, _failure(error)


def _failure(error: Exception) -> TaskFailure:
    from ray.exceptions import RayTaskError

    cause = getattr(error, "cause", None) or error
    words = " ".join(f"{type(cause).__name__}: {cause}".split())
    reason = re.sub(r"(?:/[\w.\-]+)+/", "", words)
    raised = isinstance(error, RayTaskError)
    return TaskFailure(reason=reason[:_LONGEST_ERROR], text=str(error), raised=raised)
