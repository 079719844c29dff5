"""Run the tables over an arrival log in any order, as the assets do, and read what came of it."""

from dataclasses import dataclass, field
from datetime import date

from pyspark.sql import SparkSession

from assets.day_steps import refresh_percentile_cuts, refresh_sequence_events
from infra.lake_location import Folder
from infra.lakehouse import Lakehouse
from pipelines.contract import Table
from pipelines.refits import CutRefit
from pipelines.sequences import SequenceInputs, build_sequences
from pipelines.sources.manifest import SourceManifest
from pipelines.tables import INTERACTIONS, ITEMS, SEQUENCE_EVENTS, SEQUENCES, USERS
from pipelines.users import build_user_versions, build_users
from pipelines.version_tables import ITEM_VERSIONS, USER_VERSIONS
from tests.assets.arrival_log import MANIFEST, Row, catalogue, profiles, raw_frame
from tests.assets.day_tables import rows_of, run_days

SNAPSHOTS = (ITEM_VERSIONS, ITEMS, USER_VERSIONS, USERS, SEQUENCES)


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
        """Make the tables that are snapshots of the whole: users and sequences."""
        house = self.house
        versions = build_user_versions(profiles(self.spark), house.read(INTERACTIONS))
        house.overwrite(USER_VERSIONS, versions)
        house.overwrite(USERS, build_users(house.read(USER_VERSIONS), manifest=MANIFEST))
        inputs = SequenceInputs(
            events=house.read(SEQUENCE_EVENTS), items=house.read(ITEMS), users=house.read(USERS)
        )
        house.overwrite(SEQUENCES, build_sequences(inputs, manifest=self.manifest, max_events=12))

    def rows(self, table: Table) -> list[str]:
        """Return a table's rows in one order, each as text with every value."""
        return rows_of(self.house, table)
