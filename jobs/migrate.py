"""Carry every table of a data home to the contracts of today: `make migrate`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from infra.errors import UserError
from infra.platform import Platform
from infra.run_lock import run_lock
from infra.settings import Settings
from pipelines.migrations import MIGRATIONS
from pipelines.tables import ALL_TABLES

if TYPE_CHECKING:
    from infra.lakehouse import Lakehouse


def main() -> int:
    """Migrate the tables that exist, each in one commit; return 0, or 2 if that cannot be done."""
    try:
        lines = _migrate(Settings.from_env())
    except (UserError, ValueError) as error:
        sys.stderr.write(f"ranklake: {error}\n")
        return 2
    sys.stdout.write("\n".join([*lines, ""]))
    return 0


def _migrate(settings: Settings) -> list[str]:
    if settings.load_manifest() is None:
        raise UserError(
            f"there is nothing to migrate in {settings.workspace}",
            remedy="set RANKLAKE_HOME and SOURCE to a data home that has been run",
        )
    with run_lock(settings.workspace, what="make migrate"):
        return _migrate_tables(Platform().lakehouse())


def _migrate_tables(lakehouse: "Lakehouse") -> list[str]:
    lines = []
    for table in ALL_TABLES:
        if not lakehouse.exists(table):
            continue
        found, commit = lakehouse.migrate(table, MIGRATIONS)
        state = (
            f"contract {found} -> {table.version}, {commit.num_rows:,} rows"
            if commit.changed
            else f"contract {found}, up to date"
        )
        lines.append(f"{table.name}: {state}, Delta version {commit.version}")
    return lines or ["no table has been written yet"]


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    sys.exit(main())
