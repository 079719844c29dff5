"""MLflow on one SQLite file: runs of trainings, registered models and their aliases.

A model is found by its alias, never by its age: `candidate` is set when it is registered,
`champion` by whoever has checked it. A registered folder holds safetensors and JSON, and is
loaded by `infra.model_loader` alone; MLflow is called only after that has been verified.
"""

import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pandas as pd

from infra.errors import UserError
from infra.model_loader import CARD_FILE, LoadedModel, check_folder, loader_of

CANDIDATE, CHAMPION = "candidate", "champion"
LOADER_MODULE = "infra.model_loader"
_PYFUNC_KEYS = {"loader_module", "data", "env", "python_version", "streamable"}
_METRICS_PER_CALL, _PARAMS_PER_CALL, _LONGEST_PARAM = 1000, 100, 6000
_FLAGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_NOISY = ("mlflow", "alembic")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingRun:
    """What is kept of a training.

    Attributes:
        name: Name of the run.
        config: The resolved configuration, nested; logged as parameters and as an artefact.
        metrics: Final numbers; those that are not finite are left out.
        curves: Name to (step, value) pairs.
        data_versions: Table name to the Delta version that was read.
        tags: Anything else worth finding it by.
        files: Folders and files to keep with the run.
    """

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    data_versions: Mapping[str, int] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[Path] = ()


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
        from mlflow.entities import RunTag

        client = self._client()
        tags = {**run.tags, **{f"table.{name}": str(v) for name, v in run.data_versions.items()}}
        made = client.create_run(self._experiment_id, run_name=run.name, tags=tags)
        run_id = str(made.info.run_id)
        try:
            self._log_values(run_id, run)
            client.log_dict(run_id, _plain(run.config), "config.json")
            self._log_tables(run_id, run.data_versions)
            for path in run.files:
                log = client.log_artifacts if path.is_dir() else client.log_artifact
                log(run_id, str(path), path.name if path.is_dir() else None)
        except BaseException:
            client.log_batch(run_id, tags=[RunTag("incomplete", "true")])
            client.set_terminated(run_id, "FAILED")
            raise
        client.set_terminated(run_id)
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
        with _staged(folder, card) as staged:
            info = self._log_model(mlflow, staged, card=card, run_id=run_id)
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
        return self._verified_path(name, alias=alias) / "data" / "model"

    def _verified_path(self, name: str, *, alias: str) -> Path:
        import mlflow

        self.version(name, alias=alias)
        path = _local_path(self._client().get_model_version_by_alias(name, alias), mlflow)
        _refuse_foreign(path, name=name)
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

    def _log_values(self, run_id: str, run: TrainingRun) -> None:
        from mlflow.entities import Metric, Param

        client, now = self._client(), int(time.time() * 1000)
        params = [Param(name, value[:_LONGEST_PARAM]) for name, value in _flat(run.config)]
        for start in range(0, len(params), _PARAMS_PER_CALL):
            client.log_batch(run_id, params=params[start : start + _PARAMS_PER_CALL])
        points = [(name, 0, value) for name, value in run.metrics.items()]
        points += [(n, step, value) for n, curve in run.curves.items() for step, value in curve]
        metrics = [
            Metric(name, float(value), now, int(step))
            for name, step, value in points
            if isinstance(value, (int, float)) and abs(value) < float("inf")
        ]
        for start in range(0, len(metrics), _METRICS_PER_CALL):
            client.log_batch(run_id, metrics=metrics[start : start + _METRICS_PER_CALL])

    def _log_tables(self, run_id: str, versions: Mapping[str, int]) -> None:
        from mlflow.entities import Dataset, DatasetInput

        inputs = [
            DatasetInput(
                Dataset(
                    name=name,
                    digest=f"version-{version}",
                    source_type="delta_table",
                    source=json.dumps({"table": name, "version": version}),
                )
            )
            for name, version in versions.items()
        ]
        if inputs:
            self._client().log_inputs(run_id, inputs)

    def _log_model(self, mlflow: Any, staged: Path, *, card: ModelCard, run_id: str) -> Any:
        from mlflow.models import infer_signature

        scores = LoadedModel(loader_of(card.kind)(staged)).predict(card.input_example)
        with mlflow.start_run(run_id=run_id, log_system_metrics=False):
            return mlflow.pyfunc.log_model(
                name=card.name,
                loader_module=LOADER_MODULE,
                data_path=str(staged),
                signature=infer_signature(card.input_example, scores),
                input_example=card.input_example,
                registered_model_name=card.name,
                pip_requirements=["ranklake"],
                metadata={"kind": card.kind},
                await_registration_for=0,
            )


@contextmanager
def _staged(folder: Path, card: ModelCard) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as temporary:
        staged = Path(temporary) / "model"
        shutil.copytree(folder, staged)
        text = json.dumps({"kind": card.kind, "name": card.name}, indent=1)
        (staged / CARD_FILE).write_text(text, encoding="utf-8")
        yield staged


def _local_path(found: Any, mlflow: Any) -> Path:
    uri = f"models:/{found.name}/{found.version}"
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))


def _refuse_foreign(path: Path, *, name: str) -> None:
    """Stop unless a stored model is a folder of data that our own loader reads.

    Raises:
        UserError: If loading it would run code from the registry.
    """
    import yaml

    flavors = yaml.safe_load((path / "MLmodel").read_text(encoding="utf-8")).get("flavors", {})
    pyfunc = flavors.get("python_function", {})
    others = {key for key, value in pyfunc.items() if value} - _PYFUNC_KEYS
    others |= set(flavors) - {"python_function"}
    if others or pyfunc.get("loader_module") != LOADER_MODULE:
        raise UserError(
            f"model {name!r} is refused: its MLmodel file asks for {pyfunc.get('loader_module')!r} "
            f"and {sorted(others)}, and only {LOADER_MODULE} may load a model",
            remedy="register it again, and find out who changed the artefact folder",
        )
    data = (path / str(pyfunc.get("data"))).resolve()
    if path.resolve() not in data.parents:
        raise UserError(f"model {name!r} is refused: its data lies outside its own folder")
    try:
        check_folder(data)
    except ValueError as error:
        raise UserError(f"model {name!r} is refused: {error}") from error


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for name, value in config.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{prefix}{name}.")
        else:
            pairs.append((f"{prefix}{name}", str(value)))
    return pairs
