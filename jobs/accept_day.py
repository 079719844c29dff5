"""Accept one day that a check of drift stopped: `make accept-day DAY=... WHY=...`."""

import os
import sys

from infra.accepted_days import accept_day
from infra.errors import UserError
from infra.settings import Settings


def main(arguments: list[str]) -> int:
    """Record the day and its reason; return 0, or 2 if they cannot be used.

    Args:
        arguments: The day and the reason.
    """
    day, why = (*arguments, "", "")[:2]
    try:
        settings = Settings.from_env()
        if settings.load_manifest() is None:
            raise UserError(f"nothing has run in {settings.workspace}", remedy="run make run first")
        entry = accept_day(settings.quality, day=day, why=why)
    except UserError as error:
        sys.stderr.write(f"ranklake: {error}\n")
        return 2
    sys.stdout.write(f"ranklake: {entry.day} is accepted: {entry.why}{os.linesep}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
