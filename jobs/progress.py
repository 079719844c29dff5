"""Show a run's progress: one line when a step starts, one with its time and rows when it ends."""

import logging
import sys
import time

import dagster as dg

_SHOWN_LEVEL = logging.INFO
_ENDINGS = {"STEP_SUCCESS": "done", "STEP_FAILURE": "FAILED", "STEP_SKIPPED": "skipped"}


class ProgressHandler(logging.Handler):
    """Print step starts and ends with the seconds since the run began."""

    def __init__(self) -> None:
        """Start the clock."""
        super().__init__()
        self._began = time.monotonic()
        self._step_began: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line for a step's event or a message of its own."""
        event = self._event(record)
        if event is None:
            if record.levelno >= _SHOWN_LEVEL:
                self._print(f"  {_own_words(record)}")
            return
        kind, step = event.event_type_value, str(event.step_key)
        if kind == "STEP_START":
            self._step_began[step] = time.monotonic()
            self._print(f"{step} ...")
        elif kind in _ENDINGS:
            seconds = time.monotonic() - self._step_began.get(step, time.monotonic())
            self._print(f"{step} {_ENDINGS[kind]} in {seconds:.1f} s")
        elif kind == "ASSET_CHECK_EVALUATION" and not event.asset_check_evaluation_data.passed:
            self._print(f"  check not passed: {event.message}")

    @staticmethod
    def _event(record: logging.LogRecord) -> dg.DagsterEvent | None:
        meta = getattr(record, "dagster_meta", None)
        return meta.get("dagster_event") if isinstance(meta, dict) else None

    def _print(self, text: str) -> None:
        sys.stdout.write(f"[{time.monotonic() - self._began:6.1f} s] {text}\n")
        sys.stdout.flush()


def _own_words(record: logging.LogRecord) -> str:
    """Return the message without Dagster's prefix of job, run and step."""
    meta = getattr(record, "dagster_meta", None)
    original = meta.get("orig_message") if isinstance(meta, dict) else None
    return str(original or record.getMessage())


@dg.logger(None, description="One line per step, for a terminal.")
def progress_logger(_context: dg.InitLoggerContext) -> logging.Logger:
    """Make the logger that a run prints its progress with."""
    logger = logging.Logger("ranklake.progress", level=logging.DEBUG)
    logger.addHandler(ProgressHandler())
    return logger
