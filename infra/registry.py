"""MLflow on one SQLite file: runs of trainings, registered models and their aliases.

A model is found by its alias, never by its age: `candidate` is set when it is registered,
`champion` by whoever has checked it. A registered folder holds safetensors and JSON, and is
loaded by `infra.model_loader` alone; MLflow is called only after that has been verified.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pandas as pd

from infra.errors import UserError
from infra.model_folder import LOADER_MODULE, data_folder, refuse_foreign, staged
from infra.model_loader import LoadedModel, check_folder, loader_of
from infra.run_log import TrainingRun, run_tags, write_run
from infra.trained_versions import trained_versions

CANDIDATE, CHAMPION = "candidate", "champion"
_FLAGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_NOISY = ("mlflow", "alembic")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelCard:
    """Say what a model folder is, before it is registered.

    Attributes:
        name: Registered name.
        kind: Key of `infra.model_loader.KINDS`.
        input_example: Rows that the model can score; the signature is taken from them.
        metrics: Headline numbers, kept as tags of the version.
        tags: Anything else, such as the recipe.
    """

    name: str
    kind: str
    input_example: pd.DataFrame
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelVersion:
    """Name one version of a registered model, and the aliases that point to it."""

    name: str
    version: int
    run_id: str
    aliases: tuple[str, ...]
    tags: Mapping[str, str]


class Registry:
    """Keep runs and models of one data home."""

    def __init__(
        self, *, tracking_uri: str, artifacts_uri: str, experiment: str = "ranklake"
    ) -> None:
        """Open the database, making it if there is none; MLflow is imported at first use.

        Args:
            tracking_uri: `sqlite:///` and a path.
            artifacts_uri: `file://` and a path.
            experiment: Experiment that runs belong to.
        """
        self._tracking_uri = tracking_uri
        self._artifacts_uri = artifacts_uri
        self._experiment = experiment
        self._experiment_id: str | None = None
        self._open_client: Any = None

    def log_training(self, run: TrainingRun) -> str:
        """Write a finished training as a run.

        Args:
            run: What to keep.

        Returns:
            The run's identifier.
        """
        client = self._client()
        made = client.create_run(self._experiment_id, run_name=run.name, tags=run_tags(run))
        run_id = str(made.info.run_id)
        try:
            write_run(client, run_id, run)
        except BaseException:
            client.set_terminated(run_id, "FAILED")
            raise
        client.set_terminated(run_id, "FAILED" if run.failure else "FINISHED")
        return run_id

    def register(self, folder: Path, card: ModelCard, *, run_id: str) -> ModelVersion:
        """Register a model folder as a new version with the alias `candidate`.

        Args:
            folder: Safetensors and JSON, as the kind's loader reads them.
            card: Name, kind and an example of its input.
            run_id: Run of the training that made it.

        Raises:
            ValueError: If the folder holds another kind of file, or the kind is unknown.
        """
        import mlflow

        client = self._client()
        loader_of(card.kind)
        check_folder(folder)
        with staged(folder, kind=card.kind, name=card.name) as copy:
            info = self._log_model(mlflow, copy, card=card, run_id=run_id)
        version = str(info.registered_model_version)
        numbers = {f"metric.{name}": f"{value:.6g}" for name, value in card.metrics.items()}
        for name, value in {"kind": card.kind, **numbers, **card.tags}.items():
            client.set_model_version_tag(card.name, version, name, str(value))
        client.set_registered_model_alias(card.name, CANDIDATE, version)
        return self.version(card.name, alias=CANDIDATE)

    def promote(self, name: str, *, version: int) -> ModelVersion:
        """Point the alias `champion` to a version that has passed its check."""
        self._client().set_registered_model_alias(name, CHAMPION, str(version))
        return self.version(name, alias=CHAMPION)

    def version(self, name: str, *, alias: str) -> ModelVersion:
        """Return the version that an alias points to.

        Raises:
            UserError: If there is no such model or alias.
        """
        from mlflow.exceptions import MlflowException

        client = self._client()
        try:
            found = client.get_model_version_by_alias(name, alias)
        except MlflowException as error:
            raise UserError(
                f"no model {name!r} with the alias {alias!r} is registered",
                remedy=f"materialise the assets {name} and its evaluation",
            ) from error
        aliases = tuple(sorted(client.get_model_version(name, found.version).aliases))
        return ModelVersion(
            name=name,
            version=int(found.version),
            run_id=str(found.run_id),
            aliases=aliases,
            tags=dict(found.tags),
        )

    def models(self) -> list[str]:
        """Return the names of all registered models, sorted."""
        return sorted(model.name for model in self._client().search_registered_models())

    def trained_on(self) -> dict[str, set[int]]:
        """Return each table with its versions that a registered model version was trained on.

        A version that was deleted from the registry counts no more, nor one that held a user who
        was erased.
        """
        found: dict[str, set[int]] = {}
        for trained in trained_versions(self.client()):
            for table, version in trained.tables.items():
                if f"{table}@{version}" not in trained.erased:
                    found.setdefault(table, set()).add(version)
        return found

    def tables_of(self, model: ModelVersion) -> dict[str, int]:
        """Return the tables that a model version was trained on, with their Delta versions."""
        return {
            table: version
            for trained in trained_versions(self.client())
            if (trained.name, trained.version) == (model.name, model.version)
            for table, version in trained.tables.items()
        }

    def client(self) -> Any:
        """Return MLflow's client, opened."""
        return self._client()

    def load(self, name: str, *, alias: str) -> Any:
        """Load a model by its alias; its `predict` takes a data frame and returns scores.

        Args:
            name: Registered name.
            alias: `candidate` or `champion`.

        Raises:
            UserError: If the alias is unknown, or the stored model is not one of ours.
        """
        import mlflow

        path = self._verified_path(name, alias=alias)
        return mlflow.pyfunc.load_model(str(path))

    def folder(self, name: str, *, alias: str) -> Path:
        """Return the verified folder of safetensors and JSON that an alias points to.

        Args:
            name: Registered name.
            alias: `candidate` or `champion`.

        Raises:
            UserError: If the alias is unknown, or the stored model is not one of ours.
        """
        return data_folder(self._verified_path(name, alias=alias))

    def _verified_path(self, name: str, *, alias: str) -> Path:
        import mlflow.artifacts

        found = self.version(name, alias=alias)
        uri = f"models:/{found.name}/{found.version}"
        path = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
        refuse_foreign(path, name=name)
        return path

    def _client(self) -> Any:
        if self._open_client is None:
            os.environ.update(_FLAGS)
            for prefix in ("sqlite:///", "file://"):
                for uri in (self._tracking_uri, self._artifacts_uri):
                    if uri.startswith(prefix):
                        Path(unquote(uri.removeprefix(prefix))).parent.mkdir(
                            parents=True, exist_ok=True
                        )
            import mlflow

            for name in _NOISY:
                logging.getLogger(name).setLevel(logging.ERROR)
            mlflow.set_tracking_uri(self._tracking_uri)
            mlflow.set_registry_uri(self._tracking_uri)
            client = mlflow.MlflowClient(self._tracking_uri, self._tracking_uri)
            known = client.get_experiment_by_name(self._experiment)
            self._experiment_id = (
                known.experiment_id
                if known
                else client.create_experiment(self._experiment, self._artifacts_uri)
            )
            self._open_client = client
        return self._open_client

    def _log_model(self, mlflow: Any, folder: Path, *, card: ModelCard, run_id: str) -> Any:
        from mlflow.models import infer_signature

        scores = LoadedModel(loader_of(card.kind)(folder)).predict(card.input_example)
        with mlflow.start_run(run_id=run_id, log_system_metrics=False):
            return mlflow.pyfunc.log_model(
                name=card.name,
                loader_module=LOADER_MODULE,
                data_path=str(folder),
                signature=infer_signature(card.input_example, scores),
                input_example=card.input_example,
                registered_model_name=card.name,
                pip_requirements=["ranklake"],
                metadata={"kind": card.kind},
                await_registration_for=0,
            )
