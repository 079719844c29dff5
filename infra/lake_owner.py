"""Hold a lake outside of the data home to the one source that it was made from.

A home records its source in itself (infra/source_record.py); a lake elsewhere outlives it, and
could be named by another home.
"""

import json

from infra.errors import UserError
from infra.lake_files import read_file
from infra.lake_location import StoreFolder
from infra.object_store import write_object
from infra.settings import Settings

_RECORD = "_source.json"


def claim_lake(settings: Settings) -> None:
    """Record in a lake outside of the home what it is made from; nothing is to do for others.

    Raises:
        UserError: If the lake was made from something else.
    """
    if settings.lake_root is None:
        return
    lake, record = settings.lake, json.dumps(settings.source_identity, indent=1, sort_keys=True)
    try:
        held = read_file(lake, _RECORD).decode()
    except FileNotFoundError:
        if isinstance(lake, StoreFolder):
            write_object(lake, _RECORD, record.encode(), instead_of=None)
        else:
            lake.mkdir(parents=True, exist_ok=True)
            (lake / _RECORD).write_text(record)
        held = read_file(lake, _RECORD).decode()
    if held != record:
        raise UserError(
            f"the lake at {lake} was made from another source or with other options: {held} "
            f"there, {record} here",
            remedy="set RANKLAKE_LAKE to another place, or remove that lake",
        )
