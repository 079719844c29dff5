"""What registered models were trained on, and which must be trained again after an erasure.

A model version whose training data held a user who was erased keeps two tags: which table versions
those were, and since when a new training is asked for. The request stands for as long as an alias
points to the version.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from infra.run_log import TABLE_TAG

ERASED_TAG, RETRAINING_TAG = "training_data_erased", "retraining_requested"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedVersion:
    """Say which tables a registered model version was trained on.

    Attributes:
        name: Registered name.
        version: Number of the model version.
        tables: Table name to the Delta version that was read.
        erased: Those of them, as "table@version", of which a user was erased since.
    """

    name: str
    version: int
    tables: Mapping[str, int]
    erased: tuple[str, ...]


def trained_versions(client: Any) -> list[TrainedVersion]:
    """Return every registered model version with the tables that it was trained on.

    Args:
        client: MLflow's client.
    """
    return [
        TrainedVersion(
            name=str(each.name),
            version=int(each.version),
            tables={
                tag.removeprefix(TABLE_TAG): int(value)
                for tag, value in client.get_run(each.run_id).data.tags.items()
                if tag.startswith(TABLE_TAG)
            },
            erased=_erased_tables(each.tags),
        )
        for each in _all_versions(client)
        if each.run_id
    ]


def mark_erased(
    client: Any, trained: TrainedVersion, tables: Collection[str], *, today: date
) -> None:
    """Tag a model version whose training data held an erased user, and ask for a new training.

    Args:
        client: MLflow's client.
        trained: The version.
        tables: Names of the tables that held the user, as the version read them.
        today: Written into the tags.
    """
    names = {*trained.erased, *(f"{table}@{trained.tables[table]}" for table in tables)}
    tags = {ERASED_TAG: f"{today}: {', '.join(sorted(names))}", RETRAINING_TAG: str(today)}
    for tag, value in tags.items():
        client.set_model_version_tag(trained.name, str(trained.version), tag, value)


def retraining_requests(client: Any) -> list[tuple[str, int]]:
    """Return the model versions in use that must be trained again, as (name, version).

    Args:
        client: MLflow's client.
    """
    found = set()
    for model in client.search_registered_models():
        for version in set(model.aliases.values()):
            if RETRAINING_TAG in client.get_model_version(model.name, version).tags:
                found.add((str(model.name), int(version)))
    return sorted(found)


def _erased_tables(tags: Mapping[str, str]) -> tuple[str, ...]:
    listed = tags.get(ERASED_TAG, "").partition(": ")[2]
    return tuple(listed.split(", ")) if listed else ()


def _all_versions(client: Any) -> list[Any]:
    """Return every registered version of every model, page by page."""
    found, token = [], None
    while True:
        page = client.search_model_versions(page_token=token)
        found += page
        token = page.token
        if not token:
            return found
