"""Run the tables over an arrival log in any order, as the assets do, and read what came of it."""

import random
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from pyspark.sql import SparkSession

from assets.day_steps import refresh_percentile_cuts, refresh_sequence_events
from infra.lake_location import Folder
from infra.lakehouse import Lakehouse
from pipelines.contract import Table
from pipelines.item_prompts import ItemPromptInputs, build_item_prompts
from pipelines.item_text import build_item_text
from pipelines.member_prompts import MemberPromptInputs, build_member_prompts
from pipelines.refits import CutRefit
from pipelines.sequences import SequenceInputs, build_sequences
from pipelines.sources.manifest import SourceManifest
from pipelines.tables import (
    INTERACTIONS,
    ITEM_COUNTERS,
    ITEM_DAYS,
    ITEM_PROMPTS,
    ITEM_TEXT,
    ITEMS,
    MEMBER_PROMPTS,
    PERCENTILE_CUTS,
    SEQUENCE_EVENTS,
    SEQUENCES,
    USERS,
)
from pipelines.users import build_user_versions, build_users
from pipelines.version_tables import ITEM_VERSIONS, USER_VERSIONS
from tests.assets.arrival_log import (
    DAYS,
    MANIFEST,
    Row,
    arrived,
    catalogue,
    day,
    profiles,
    raw_frame,
)
from tests.assets.day_tables import rows_of, run_days

_LAST_ARRIVAL = DAYS + 5
_EARLY_RUNS = 3  # over what had arrived by some day, before the last ones know everything
SNAPSHOTS = (
    ITEM_VERSIONS,
    ITEMS,
    USER_VERSIONS,
    USERS,
    SEQUENCES,
    ITEM_TEXT,
    ITEM_PROMPTS,
    MEMBER_PROMPTS,
)


@dataclass(kw_only=True)
class Lake:
    """A lake that is fed runs.

    Attributes:
        root: Its folder.
        spark: The session.
        manifest: What describes the log.
        refits: The re-fits so far.
    """

    root: Folder
    spark: SparkSession
    manifest: SourceManifest = MANIFEST
    refits: list[CutRefit] = field(default_factory=list)

    @property
    def house(self) -> Lakehouse:
        """Return the lakehouse of the folder."""
        return Lakehouse(self.root, self.spark)

    def run(self, arrived: list[Row], *, start: date, end: date) -> None:
        """Run the event tables over a range of days, with what had arrived by then."""
        rows = [row for row in arrived if start <= row["event_date"] <= end]
        run_days(
            self.house,
            self.manifest,
            raw=raw_frame(self.spark, rows),
            catalogue=catalogue(self.spark),
            days=(start, end),
            refits=tuple(self.refits),
        )

    def refit(self, refit: CutRefit) -> None:
        """Fit the cuts of a range of days again, as `make refit` does."""
        self.refits.append(refit)
        start, end = refit.first_day, refit.last_day
        house, manifest, refits = self.house, self.manifest, tuple(self.refits)
        refresh_percentile_cuts(house, manifest, start=start, end=end, refits=refits)
        refresh_sequence_events(house, manifest, start=start, end=end)

    def finish(self) -> None:
        """Make the tables that are snapshots of the whole: users, sequences and prompts."""
        house = self.house
        versions = build_user_versions(profiles(self.spark), house.read(INTERACTIONS))
        house.overwrite(USER_VERSIONS, versions)
        house.overwrite(USERS, build_users(house.read(USER_VERSIONS), manifest=self.manifest))
        inputs = SequenceInputs(
            events=house.read(SEQUENCE_EVENTS), items=house.read(ITEMS), users=house.read(USERS)
        )
        house.overwrite(SEQUENCES, build_sequences(inputs, manifest=self.manifest, max_events=12))
        text = build_item_text(
            house.read(ITEM_VERSIONS), items=house.read(ITEMS), manifest=self.manifest
        )
        house.overwrite(ITEM_TEXT, text)
        self._write_prompts(house)

    def _write_prompts(self, house: Lakehouse) -> None:
        items = ItemPromptInputs(
            versions=house.read(ITEM_VERSIONS),
            item_days=house.read(ITEM_DAYS),
            counters=house.read(ITEM_COUNTERS),
            cuts=house.read(PERCENTILE_CUTS),
        )
        house.overwrite(ITEM_PROMPTS, build_item_prompts(items, manifest=self.manifest))
        members = MemberPromptInputs(
            interactions=house.read(INTERACTIONS),
            items=house.read(ITEM_VERSIONS),
            users=house.read(USER_VERSIONS),
        )
        house.overwrite(MEMBER_PROMPTS, build_member_prompts(members, manifest=self.manifest))

    def rows(self, table: Table) -> list[str]:
        """Return a table's rows in one order, each as text with every value."""
        return rows_of(self.house, table)


def interleave(lake: Lake, log: list[Row], chance: random.Random) -> list[str]:
    """Feed a lake a history of runs that ends with everything known; return it in words.

    Args:
        lake: An empty lake.
        log: The whole log.
        chance: Draws the history.
    """
    told = []
    for now in sorted(chance.sample(range(2, _LAST_ARRIVAL), k=_EARLY_RUNS)):
        last = chance.randint(1, min(now - 1, DAYS))
        first = chance.randint(1, last)
        if chance.random() < 0.3 and told:
            refit = CutRefit(
                first_day=day(first),
                last_day=day(last),
                arrived_before=day(now),
                requested_at=datetime(2024, 3, now, tzinfo=UTC),
                why="drill",
            )
            lake.refit(refit)
            told.append(f"day {now}: cuts of {first}-{last} again")
        lake.run(arrived(log, before=day(now)), start=day(first), end=day(last))
        told.append(f"day {now}: {first}-{last}")
    ranges = _ranges(chance)
    chance.shuffle(ranges)
    for first, last in ranges:
        lake.run(log, start=day(first), end=day(last))
        told.append(f"at last: {first}-{last}")
    lake.finish()
    return told


def _ranges(chance: random.Random) -> list[tuple[int, int]]:
    """Cut the days into ranges."""
    edges = sorted(chance.sample(range(2, DAYS + 1), k=chance.randint(1, 3)))
    starts = [1, *edges]
    return [(start, end - 1) for start, end in zip(starts, [*edges, DAYS + 1], strict=True)]
