"""The one Dagster resource: settings, Spark, lakehouse and source, each opened once when needed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field, PrivateAttr

from infra.run_lock import run_lock
from infra.settings import Settings
from pipelines.sources.manifest import SourceManifest

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from infra.lakehouse import Lakehouse
    from infra.quality import QualityGate
    from infra.registry import Registry
    from infra.sources import SourceModule
    from infra.suppression import SuppressionList


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Read one source's frames with its path, manifest and options filled in.

    No row of a suppressed user is in any of them.
    """

    module: "SourceModule"
    spark: "SparkSession"
    path: str | None
    manifest: SourceManifest
    options: dict[str, str]
    suppressed: "SuppressionList | None" = None

    def events(self, start: date, end: date) -> "DataFrame":
        """Return the raw rows filed under the days start..end, inclusive."""
        return self._without_suppressed(self._all_events(start, end))

    def num_suppressed(self, start: date, end: date) -> int:
        """Count the raw rows of some days that are left out because of whose they are."""
        if self.suppressed is None:
            return 0
        return self.suppressed.marked(self._all_events(start, end)).where("is_suppressed").count()

    def items(self) -> "DataFrame":
        """Return the source's catalogue."""
        return self.module.items(self.spark, self.path, self.manifest, self.options)

    def users(self) -> "DataFrame":
        """Return the source's user profiles."""
        users = self.module.users(self.spark, self.path, self.manifest, self.options)
        return self._without_suppressed(users)

    def history(self) -> "DataFrame | None":
        """Return undated history, oldest first, or None where the source has none."""
        read = getattr(self.module, "history", None)
        if read is None:
            return None
        history = read(self.spark, self.path, self.manifest, self.options)
        return None if history is None else self._without_suppressed(history)

    def changed_columns(self) -> dict[str, str]:
        """Return what differs in the columns of the source's files, to be recorded; else empty."""
        from pipelines.sources.file_columns import source_notes

        compare = getattr(self.module, "changed_columns", None)
        if compare is not None:
            return compare(self.path, self.manifest, self.options)
        kinds = getattr(self.module, "file_kinds", None)
        return {} if kinds is None else source_notes(kinds(self.path), known=self.manifest.columns)

    def _all_events(self, start: date, end: date) -> "DataFrame":
        return self.module.events(
            self.spark, self.path, self.manifest, self.options, start=start, end=end
        )

    def _without_suppressed(self, frame: "DataFrame") -> "DataFrame":
        if self.suppressed is None:
            return frame
        return self.suppressed.marked(frame).where("NOT is_suppressed").drop("is_suppressed")


class Platform(dg.ConfigurableResource):
    """Give assets the outside world; everything heavy starts on first use and once a process."""

    variables: dict[str, str] = Field(
        default_factory=dict,
        description="RANKLAKE_* variables to use instead of the process's environment.",
    )
    _manifest: SourceManifest | None = PrivateAttr(default=None)
    _quality: "QualityGate | None" = PrivateAttr(default=None)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["Platform"]:
        """Share the lock of the source's folder while a run, wherever it was started, goes on.

        Raises:
            UserError: If an erasure is going on.
        """
        if context.run is None:  # a sensor asks, or a test
            yield self
            return
        what = f"a run of {context.run.job_name} ({context.run.run_id[:8]})"
        with run_lock(self.settings().workspace, what=what):
            yield self

    def settings(self) -> Settings:
        """Return the settings of the data home."""
        return Settings.from_env(self.variables or None)

    def spark(self) -> "SparkSession":
        """Return the process's Spark session."""
        from infra.spark import spark_session

        return spark_session(self.settings())

    def lakehouse(self) -> "Lakehouse":
        """Return the lakehouse of the data home."""
        from infra.lakehouse import Lakehouse

        manifest = self.manifest()
        return Lakehouse(self.settings().lake, self.spark(), partition_unit=manifest.partition_unit)

    def registry(self, *, experiment: str = "ranklake") -> "Registry":
        """Return the model registry of the data home; new runs belong to the experiment."""
        from infra.registry import Registry

        settings = self.settings()
        return Registry(
            tracking_uri=settings.mlflow_tracking_uri,
            artifacts_uri=settings.mlflow_artifacts_uri,
            experiment=experiment,
        )

    def quality(self) -> "QualityGate":
        """Return the gate that holds tables to their expectations; one context per process."""
        from infra.quality import QualityGate

        if self._quality is None:
            settings = self.settings()
            self._quality = QualityGate(settings.quality, docs=settings.reports / "data_docs")
        return self._quality

    def start_ray(self) -> None:
        """Start this process's Ray instance, or attach to a cluster, unless it has one."""
        from infra.cluster import ClusterConfig, ray_instance

        settings = self.settings()
        ray_instance(
            ClusterConfig(
                cpus=settings.threads,
                cpus_per_worker=settings.cpus_per_worker,
                gpus_per_worker=settings.gpus_per_worker,
                address=settings.ray_address,
            )
        )

    def manifest(self) -> SourceManifest:
        """Return the frozen description of the source, made on the first call in a new home.

        Raises:
            UserError: If the source cannot be read, or the home or the lake holds another source.
        """
        from infra.lake_owner import claim_lake

        if self._manifest is None:
            settings = self.settings()
            found = settings.load_manifest()
            claim_lake(settings)
            if found is None:
                found = self.describe_source()
                settings.save_manifest(found)
            self._manifest = found
        return self._manifest

    def source(self) -> Source:
        """Return the reader of the source's frames.

        Raises:
            UserError: If users are suppressed and the key that tells who is missing.
        """
        from infra.sources import source_module
        from infra.suppression import load_list

        settings = self.settings()
        return Source(
            module=source_module(settings.source),
            spark=self.spark(),
            path=settings.data,
            manifest=self.manifest(),
            options=settings.source_options,
            suppressed=load_list(settings),
        )

    def describe_source(self) -> SourceManifest:
        """Describe the source as it is now, whatever the data home was made with.

        Raises:
            SourceError: If the source cannot be read.
        """
        from infra.sources import source_module

        settings = self.settings()
        module = source_module(settings.source)
        return module.describe(self.spark(), settings.data, settings.source_options)
