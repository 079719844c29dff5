"""Where things are: every environment variable of ranklake is read here and nowhere else."""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

from infra.errors import UserError
from infra.lake_location import Folder, is_remote_path, lake_folder
from infra.source_record import load_manifest, recorded_paths, save_manifest, text_digest
from infra.variables import absolute, folder_or_list, number, path_of
from pipelines.sources.manifest import SourceManifest
from pipelines.sources.simulation.config import PRESETS, FeedConfig

PROFILES = ("default", "test")
_COUNTS = (
    "feed_users",
    "feed_days",
    "max_events",
    "workers",
    "min_workers",
    "threads",
    "shuffle_partitions",
    "retention_days",
)
_NUMBERS = (*_COUNTS, "gpus_per_worker")
_KEY_NAME = "ranklake/suppression.key"
# The test profile's feed exercises every table and takes seconds; a variable overrides it.
_TEST_PROFILE = {
    "RANKLAKE_FEED_USERS": "300",
    "RANKLAKE_FEED_DAYS": "12",
    "RANKLAKE_MAX_EVENTS": "64",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Hold where this run reads and writes, and how much of the machine it may use.

    Attributes:
        home: The data home, absolute; all state lives under it, a folder per source.
        source: Name of the source adapter.
        data: Absolute path of the source's files; None for the simulated feed.
        mapping: Absolute path of the TOML mapping of a `mapped` source.
        profile: "default", or "test" for the smallest sizes of everything.
        timezone: IANA zone of the source's days, or None for the source's own.
        feed_users: Users of the simulated feed, or None for its default.
        feed_days: Days of the simulated feed, or None for its default.
        feed_preset: A toy that the simulated feed plants in place of its terms, or None.
        max_events: Most events of its own in one row of the sequences table.
        encoder: Sentence-transformers id or folder, or None for the embedded encoder.
        language_model: Transformers id or folder, or None for the tiny configuration.
        workers: Ray Train workers of one training, at most.
        min_workers: With how many a training goes on while the others cannot be placed; None for
            all of them.
        cpus_per_worker: Processors that each worker takes, a fraction to share one; None for a
            small fraction on this machine and an even share of the nodes of a cluster.
        gpus_per_worker: Accelerators that each worker takes, at most one; 0 trains on the
            processors.
        ray_address: host:port of a Ray cluster that runs already, or None for Ray on this machine.
        threads: Cores that Spark and Ray may use.
        driver_memory: Heap of the Spark driver, in the JVM's notation.
        shuffle_partitions: Partitions of a Spark shuffle before adaptive coalescing.
        retention_days: Age from which care removes files that no kept version needs.
        lake_root: Where the lakes of all sources are, or None for the home. The credentials that
            it holds for a store are in no text of these settings.
        jars: Folder that already holds Delta's jars, or None for the cache under the home.
        lake_jars: Folder of the jars, or Maven coordinates, of the file system of the lake's
            object store; None for the tested ones of `s3a`.
        dagster_url: Address of Dagster's web UI, which pages link runs to, or None.
        suppression_key: File of the key that suppressed users are known by, outside of the home,
            or None for the one in the user's folder of configurations.
        java_home: Folder of the Java to use, or None for the one on the PATH.
        spark_master: `spark://host:port` of a standalone master, or None for Spark in this process.
        spark_remote: `sc://host:port` of a Spark Connect server, or None.
        driver_host: Name by which a master's executors reach this machine, or None to find it.
    """

    home: Path
    source: str = "simulated"
    data: str | None = None
    mapping: str | None = None
    profile: str = "default"
    timezone: str | None = None
    feed_users: int | None = None
    feed_days: int | None = None
    feed_preset: str | None = None
    max_events: int = 128
    encoder: str | None = None
    language_model: str | None = None
    workers: int = 2
    min_workers: int | None = None
    cpus_per_worker: float | None = None
    gpus_per_worker: int = 0
    ray_address: str | None = None
    threads: int = 2
    driver_memory: str = "2g"
    shuffle_partitions: int = 4
    retention_days: int = 7
    lake_root: Folder | None = None
    jars: Path | None = None
    lake_jars: str | None = None
    java_home: Path | None = None
    dagster_url: str | None = None
    spark_master: str | None = None
    spark_remote: str | None = None
    driver_host: str | None = None
    suppression_key: Path | None = None

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: If a field is out of its range.
        """
        if not self.home.is_absolute():
            raise ValueError(f"home must be absolute, not {self.home}")
        if self.profile not in PROFILES:
            raise ValueError(f"RANKLAKE_PROFILE must be one of {PROFILES}, not {self.profile!r}")
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"RANKLAKE_{name.upper()} must be at least 1, not {value}")
        self._check_worker()
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(
                f"RANKLAKE_MIN_WORKERS must be at most RANKLAKE_WORKERS ({self.workers}), "
                f"not {self.min_workers}"
            )
        if self.feed_preset is not None and self.feed_preset not in PRESETS:
            raise ValueError(
                f"RANKLAKE_FEED_PRESET must be one of {PRESETS}, not {self.feed_preset!r}"
            )
        check_addresses(self.spark_master, self.spark_remote)

    def _check_worker(self) -> None:
        if self.gpus_per_worker not in (0, 1):
            raise ValueError(
                f"RANKLAKE_GPUS_PER_WORKER must be 0 or 1, not {self.gpus_per_worker}: a worker "
                "computes on one device; set RANKLAKE_WORKERS to use more of them"
            )
        most = self.threads if self.ray_address is None else math.inf
        cpus = self.cpus_per_worker
        if cpus is not None and (not 0 < cpus <= most or not (cpus <= 1 or cpus.is_integer())):
            raise ValueError(
                "RANKLAKE_CPUS_PER_WORKER must be a fraction of one or a whole number, and without "
                f"RAY_ADDRESS at most RANKLAKE_THREADS ({self.threads}), not {cpus:g}"
            )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Read the settings from the environment; an empty variable counts as unset.

        Without a path, the one that the source's folder was made from is taken.

        Args:
            environ: Variables to read, the process's own by default.

        Raises:
            UserError: If a variable cannot be read as what it should be.
        """
        found = os.environ if environ is None else environ
        env = {name: value.strip() for name, value in found.items() if value.strip()}
        if is_remote_path(env.get("RANKLAKE_HOME", "")):
            raise UserError(
                "RANKLAKE_HOME must be a folder: reports, models and run histories are files",
                remedy="set RANKLAKE_LAKE to put the tables on an object store",
            )
        profile = env.get("RANKLAKE_PROFILE", "default")
        env = {**(_TEST_PROFILE if profile == "test" else {}), **env}
        numbers = {
            name: value
            for name in _NUMBERS
            if (value := number(env, f"RANKLAKE_{name.upper()}", int)) is not None
        }
        numbers.setdefault("threads", len(os.sched_getaffinity(0)))
        try:
            settings = cls(
                home=Path(absolute(env.get("RANKLAKE_HOME", ".ranklake"))),
                source=env.get("RANKLAKE_SOURCE", "simulated"),
                data=path_of(env, "RANKLAKE_DATA_PATH"),
                mapping=path_of(env, "RANKLAKE_MAPPING"),
                profile=profile,
                timezone=env.get("RANKLAKE_TIMEZONE"),
                feed_preset=env.get("RANKLAKE_FEED_PRESET"),
                encoder=env.get("RANKLAKE_ENCODER"),
                dagster_url=env.get("RANKLAKE_DAGSTER_URL"),
                language_model=env.get("RANKLAKE_LANGUAGE_MODEL"),
                driver_memory=env.get("RANKLAKE_DRIVER_MEMORY", "2g"),
                lake_root=lake_folder(place, env) if (place := env.get("RANKLAKE_LAKE")) else None,
                jars=Path(jars) if (jars := path_of(env, "RANKLAKE_JARS")) else None,
                lake_jars=folder_or_list(env.get("RANKLAKE_LAKE_JARS")),
                ray_address=env.get("RAY_ADDRESS"),
                cpus_per_worker=number(env, "RANKLAKE_CPUS_PER_WORKER", float),
                spark_master=env.get("SPARK_MASTER"),
                spark_remote=env.get("SPARK_REMOTE"),
                driver_host=env.get("RANKLAKE_DRIVER_HOST"),
                java_home=Path(env["JAVA_HOME"]) if "JAVA_HOME" in env else None,
                suppression_key=_suppression_key(env),
                **numbers,
            )
        except ValueError as error:
            raise UserError(str(error)) from error
        if settings.source == "simulated" or settings.data is not None:
            return settings
        return replace(settings, **recorded_paths(settings.source_file))

    @property
    def source_options(self) -> dict[str, str]:
        """Return what a source adapter takes as its options; only what was set."""
        feed = {"users": self.feed_users, "days": self.feed_days, "preset": self.feed_preset}
        options = {
            **(feed if self.source == "simulated" else {}),
            "mapping": self.mapping if self.source == "mapped" else None,
            "timezone": self.timezone,
        }
        return {name: str(value) for name, value in options.items() if value is not None}

    @property
    def source_identity(self) -> dict[str, str]:
        """Return what makes two sources the same: name, path, options, the mapping's text."""
        identity = {"source": self.source, **self.source_options}
        if self.source != "simulated" and self.data is not None:
            identity["data"] = self.data
        if self.source == "mapped" and self.mapping is not None:
            identity["mapping_sha256"] = text_digest(self.mapping)
        return identity

    @property
    def feed_start(self) -> date:
        """Return the first day of the simulated feed."""
        return date.fromisoformat(self._feed.start_date)

    @property
    def feed_end(self) -> date:
        """Return the last day of the simulated feed, inclusive."""
        return self.feed_start + timedelta(days=self._feed.days - 1)

    @property
    def _feed(self) -> FeedConfig:
        return FeedConfig.from_options(self.source_options if self.source == "simulated" else {})

    def load_manifest(self) -> SourceManifest | None:
        """Return the manifest of the source that this home holds, or None for a new home.

        Raises:
            UserError: If the home holds another source, or its record cannot be read.
        """
        return load_manifest(self.source_file, identity=self.source_identity)

    def save_manifest(self, manifest: SourceManifest) -> None:
        """Record the source of this home, so that no other is mixed in.

        Raises:
            UserError: If the home holds another source.
        """
        save_manifest(self.source_file, manifest, identity=self.source_identity)

    @property
    def workspace(self) -> Path:
        """Return the folder of the source in the data home; two sources never share a table."""
        return self.home / self.source

    @property
    def lake(self) -> Folder:
        """Return the root folder of the source's Delta tables."""
        return self.workspace / "lake" if self.lake_root is None else self.lake_root / self.source

    @property
    def jar_cache(self) -> Path:
        """Return the folder that holds Delta's jars."""
        return self.jars or self.home / "jars"

    @property
    def spark_folder(self) -> Path:
        """Return the folder of Spark's own files: warehouse, scratch and Ivy's cache."""
        return self.home / "spark"

    @property
    def ray_folder(self) -> Path:
        """Return the folder of the trainings' checkpoints."""
        return self.workspace / "training"

    @property
    def models(self) -> Path:
        """Return the folder of weights and configs that are not yet registered."""
        return self.workspace / "models"

    @property
    def dagster_home(self) -> Path:
        """Return the folder that `DAGSTER_HOME` must name."""
        return self.workspace / "dagster"

    @property
    def mlflow_tracking_uri(self) -> str:
        """Return the address of MLflow's SQLite database."""
        return f"sqlite:///{self.workspace / 'mlflow' / 'mlflow.db'}"

    @property
    def mlflow_artifacts_uri(self) -> str:
        """Return the address of MLflow's artefact folder."""
        return self.mlflow_artifacts.as_uri()

    @property
    def mlflow_artifacts(self) -> Path:
        """Return MLflow's artefact folder."""
        return self.workspace / "mlflow" / "artifacts"

    @property
    def reports(self) -> Path:
        """Return the folder of the report and the data docs."""
        return self.workspace / "reports"

    @property
    def quality(self) -> Path:
        """Return the folder of the suites, their results and the accepted days."""
        return self.workspace / "quality"

    @property
    def pending_days(self) -> Path:
        """Return the file of the days that an update has still to write."""
        return self.workspace / "pending_days.json"

    @property
    def suppression_key_file(self) -> Path:
        """Return the file of the key that suppressed users are known by."""
        return self.suppression_key or Path(absolute(f"~/.config/{_KEY_NAME}"))

    @property
    def suppressed_users_file(self) -> Path:
        """Return the list of suppressed users."""
        return self.workspace / "suppressed_users.json"

    @property
    def source_file(self) -> Path:
        """Return the file that records which source this home holds."""
        return self.workspace / "source.json"


def folder_of(uri: str) -> Folder:
    """Return the folder of the lake that a training was told, credentials from the environment.

    Raises:
        UserError: If it is no place that a lake can be at.
    """
    return lake_folder(uri, os.environ)


def check_addresses(master: str | None, remote: str | None) -> None:
    """Check the addresses of a Spark that runs elsewhere.

    Raises:
        ValueError: If both are given, or one is not an address of its kind.
    """
    if master is not None and remote is not None:
        raise ValueError("SPARK_MASTER and SPARK_REMOTE name two Sparks: unset one of them")
    for name, value, scheme in (
        ("SPARK_MASTER", master, "spark"),
        ("SPARK_REMOTE", remote, "sc"),
    ):
        if value is not None and not re.match(rf"{scheme}://[^/:\s]", value):
            raise ValueError(f"{name} must be {scheme}://host:port, not {value!r}")


def _suppression_key(env: Mapping[str, str]) -> Path | None:
    if (named := path_of(env, "RANKLAKE_SUPPRESSION_KEY")) is not None:
        return Path(named)
    folder = env.get("XDG_CONFIG_HOME")
    return Path(absolute(folder)) / _KEY_NAME if folder else None
