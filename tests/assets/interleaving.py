"""Run the tables over an arrival log in any order, as the assets do, and read what came of it."""

from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from pyspark.sql import SparkSession

from assets.day_steps import (
    refresh_interactions,
    refresh_item_counters,
    refresh_item_days,
    refresh_percentile_cuts,
)
from infra.lakehouse import Lakehouse
from pipelines.contract import Table
from pipelines.event_features import SequenceInputs
from pipelines.items import build_items
from pipelines.refits import CutRefit
from pipelines.sequences import build_sequences
from pipelines.tables import (
    INTERACTIONS,
    ITEM_COUNTERS,
    ITEM_DAYS,
    ITEMS,
    PERCENTILE_CUTS,
    RAW_EVENTS,
    REJECTED_EVENTS,
    SEQUENCES,
    USERS,
)
from pipelines.users import build_users
from tests.assets.arrival_log import MANIFEST, Row, catalogue, raw_frame

DAY_TABLES = (
    RAW_EVENTS,
    REJECTED_EVENTS,
    INTERACTIONS,
    ITEM_DAYS,
    ITEM_COUNTERS,
    PERCENTILE_CUTS,
)
SNAPSHOTS = (ITEMS, USERS, SEQUENCES)


@dataclass(kw_only=True)
class Lake:
    """A lake that is fed runs.

    Attributes:
        root: Its folder.
        spark: The session.
        refits: The re-fits so far.
    """

    root: Path
    spark: SparkSession
    refits: list[CutRefit] = field(default_factory=list)

    @property
    def house(self) -> Lakehouse:
        """Return the lakehouse of the folder."""
        return Lakehouse(self.root, self.spark)

    def run(self, arrived: list[Row], *, start: date, end: date) -> None:
        """Run the event tables over a range of days, with what had arrived by then."""
        house = self.house
        rows = [row for row in arrived if start <= row["event_date"] <= end]
        raw = raw_frame(self.spark, rows)
        house.overwrite_partition(RAW_EVENTS, raw, start=start, end=end)
        items = catalogue(self.spark)
        refresh_interactions(house, MANIFEST, items=items.select("item_id"), start=start, end=end)
        refresh_item_days(house, MANIFEST, start=start, end=end)
        house.overwrite(ITEMS, build_items(items, house.read(ITEM_DAYS)))
        refresh_item_counters(house, MANIFEST, start=start, end=end)
        self.fit(start=start, end=end)

    def fit(self, *, start: date, end: date) -> None:
        """Fit the percentile cuts of a range of days."""
        refits = tuple(self.refits)
        refresh_percentile_cuts(self.house, MANIFEST, start=start, end=end, refits=refits)

    def finish(self) -> None:
        """Make the tables that are snapshots of the whole: users and sequences."""
        house = self.house
        profiles = self.spark.createDataFrame(
            [], "user_id string, text string, features map<string,string>"
        )
        house.overwrite(USERS, build_users(profiles, house.read(INTERACTIONS)))
        inputs = SequenceInputs(
            interactions=house.read(INTERACTIONS),
            items=house.read(ITEMS),
            users=house.read(USERS),
            item_days=house.read(ITEM_DAYS),
            counters=house.read(ITEM_COUNTERS),
            cuts=house.read(PERCENTILE_CUTS),
        )
        house.overwrite(SEQUENCES, build_sequences(inputs, manifest=MANIFEST, max_events=12))

    def rows(self, table: Table) -> list[str]:
        """Return a table's rows in one order, each as text with every value."""
        return sorted(map(repr, self.house.read(table).coalesce(1).collect()))
