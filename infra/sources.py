"""Find the adapter of a source by its name."""

from collections.abc import Mapping
from datetime import date
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from infra.errors import UserError
from pipelines.sources.manifest import SourceManifest

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

MODULES = {
    "simulated": "pipelines.sources.simulated_feed",
    "kuairand": "pipelines.sources.kuairand",
    "movielens": "pipelines.sources.movielens",
    "amazon": "pipelines.sources.amazon",
    "amazon_sequences": "pipelines.sources.amazon_sequences",
    "mind": "pipelines.sources.mind",
    "tencentgr": "pipelines.sources.tencentgr",
    "mapped": "pipelines.sources.mapped",
}


class SourceModule(Protocol):
    """What each source module offers; some have more (see platform.Source)."""

    def describe(
        self, spark: "SparkSession", path: str | None, options: Mapping[str, str]
    ) -> SourceManifest:
        """Look at the source and say what it can supply."""
        ...

    def events(
        self,
        spark: "SparkSession",
        path: str | None,
        manifest: SourceManifest,
        options: Mapping[str, str],
        *,
        start: date,
        end: date,
    ) -> "DataFrame":
        """Return the raw events filed under a range of days."""
        ...

    def items(
        self,
        spark: "SparkSession",
        path: str | None,
        manifest: SourceManifest,
        options: Mapping[str, str],
    ) -> "DataFrame":
        """Return the catalogue; several rows of one item with `valid_from` are its versions."""
        ...

    def users(
        self,
        spark: "SparkSession",
        path: str | None,
        manifest: SourceManifest,
        options: Mapping[str, str],
    ) -> "DataFrame":
        """Return the users; several rows of one user with `valid_from` are their versions."""
        ...


def source_module(name: str) -> SourceModule:
    """Return the adapter of a source.

    Raises:
        UserError: If there is no source of that name.
    """
    if name not in MODULES:
        raise UserError(f"unknown source {name!r}", remedy=f"choose one of {', '.join(MODULES)}")
    return cast("SourceModule", import_module(MODULES[name]))
