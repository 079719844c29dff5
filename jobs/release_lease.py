"""Release the lease of a table whose holder has ended: `make release-lease TABLE=<name>`.

For a holder on another machine, or one that wrote through a Spark Connect server: whether it has
ended is for a person to see. A holder that is seen to run here keeps its lease.
"""

import sys
from pathlib import Path

from infra.errors import UserError
from infra.lake_location import StoreFolder
from infra.lease import release_lease
from infra.settings import Settings
from infra.write_lock import lock_name
from pipelines.tables import ALL_TABLES

_FORGET = "forget"


def main() -> int:
    """Release the lease of the table in the first argument; return 0, or 2 if that cannot be."""
    try:
        line = _release(Settings.from_env(), sys.argv[1] if len(sys.argv) > 1 else "")
    except UserError as error:
        sys.stderr.write(f"ranklake: {error}\n")
        return 2
    sys.stdout.write(f"{line}\n")
    return 0


def _release(settings: Settings, table: str) -> str:
    names = {each.name: lock_name(each) for each in ALL_TABLES} | {_FORGET: _FORGET}
    if table not in names:
        raise UserError(
            f"there is no table {table!r}", remedy=f"say one of {', '.join(sorted(names))}"
        )
    if not isinstance(settings.lake, StoreFolder):
        raise UserError(
            f"the lake at {settings.lake} is no object store and has no leases",
            remedy="set RANKLAKE_LAKE as the run did that was refused",
        )
    holder = release_lease(settings.lake, names[table])
    if holder is None:
        return f"{table}: the lease is free"
    return f"{table}: taken from {holder}; the next writer removes what that left"


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    sys.exit(main())
