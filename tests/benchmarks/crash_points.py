"""The points at which the crash drill kills: every table of the lake, moment and victim in turn."""

from dataclasses import asdict, dataclass
from typing import Any

from pipelines.tables import ALL_TABLES

TABLES = ALL_TABLES
MOMENTS = ("data", "commit", "before")
VICTIMS = ("jvm", "python")
# The table whose step comes just before, to be run with it where the kill falls between the two.
NEEDS: dict[str, str | None] = {
    "raw_events": None,
    "rejected_events": "raw_events",
    "interactions": "rejected_events",  # one step makes both
    "item_days": "interactions",
    "item_versions": "item_days",
    "items": "item_versions",
    "user_versions": "interactions",
    "users": "user_versions",
    "item_counters": "item_days",
    "percentile_cuts": "item_days",
    "sequence_events": "percentile_cuts",
    "sequences": "sequence_events",
    "item_text": "items",
    "item_embeddings": "item_text",
    "semantic_ids": "item_embeddings",
    "member_prompts": "item_text",
    "item_prompts": "item_text",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """Say where to kill what.

    Attributes:
        table: Name of the table that is written.
        moment: One of `MOMENTS`.
        victim: "jvm" or "python", the driver's two processes.
        left: What the write finds: "nothing", or an "old" table, a snapshot with other rows.
    """

    table: str
    moment: str
    victim: str
    left: str = "nothing"

    def plan(self) -> dict[str, Any]:
        """Return the point as a driver takes it."""
        return asdict(self)


def points(number: int) -> list[Point]:
    """Return fault points: twice as many as tables reach each with either victim.

    Six times as many are all different: three moments, two victims.
    """
    found = []
    for place in range(number):
        table, cycle = place % len(TABLES), place // len(TABLES)
        other = (table + (cycle % len(MOMENTS) == 1) + cycle // len(MOMENTS)) % 2
        found.append(
            Point(
                table=TABLES[table].name,
                moment=MOMENTS[(table + cycle) % len(MOMENTS)],
                victim=VICTIMS[other],
                left=("nothing", "old")[(table // 2 + cycle) % 2],
            )
        )
    return found
