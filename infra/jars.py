"""Delta's two jars: fetched once through Spark's own Ivy, checked by SHA-256, kept in a cache."""

import hashlib
import logging
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from infra.errors import UserError
from infra.java import find_java
from infra.settings import Settings

_LOG = logging.getLogger(__name__)
_FETCH_TIMEOUT_SECONDS = 300.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Jar:
    """Name one jar by its Maven coordinate and the SHA-256 of its bytes."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def coordinate(self) -> str:
        """Return group:artifact:version."""
        return f"{self.group}:{self.artifact}:{self.version}"

    @property
    def file_name(self) -> str:
        """Return the file name that Maven repositories use."""
        return f"{self.artifact}-{self.version}.jar"


# Spark's own classpath holds newer copies of everything else that Delta's metadata asks for.
DELTA_JARS = (
    Jar(
        group="io.delta",
        artifact="delta-spark_4.2_2.13",
        version="4.4.0",
        sha256="27d4fd8b1f879535c573ed1c718177d6a27f24d3e626ba02e216369725721ead",
    ),
    Jar(
        group="io.delta",
        artifact="delta-storage",
        version="4.4.0",
        sha256="c46735481fa8e326b0957be02b4420cbcab4b325bb08009b7f2045a95133f1cc",
    ),
)


def delta_jars(settings: Settings, *, jars: tuple[Jar, ...] = DELTA_JARS) -> tuple[Path, ...]:
    """Return the paths of Delta's jars, fetching the missing ones first.

    Args:
        settings: Names the cache, or a folder that already holds the jars.
        jars: The jars wanted.

    Raises:
        UserError: If a jar cannot be fetched, or has other bytes than expected.
    """
    folder = settings.jar_cache
    missing = tuple(jar for jar in jars if not (folder / jar.file_name).is_file())
    if missing and settings.jars is not None:
        names = ", ".join(jar.file_name for jar in missing)
        raise UserError(
            f"RANKLAKE_JARS={folder} does not hold {names}",
            remedy="put the file there or unset RANKLAKE_JARS",
        )
    if missing:
        _fetch(missing, settings=settings)
    for jar in jars:
        _check(folder / jar.file_name, jar=jar)
    return tuple(folder / jar.file_name for jar in jars)


def _fetch(jars: tuple[Jar, ...], *, settings: Settings) -> None:
    settings.jar_cache.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=settings.jar_cache, prefix=".fetch-") as folder:
        for jar in jars:
            _LOG.info("fetching %s once, into %s", jar.coordinate, settings.jar_cache)
            path = _run_ivy(jar, settings=settings, folder=Path(folder))
            _check(path, jar=jar)
            path.replace(settings.jar_cache / jar.file_name)


def _run_ivy(jar: Jar, *, settings: Settings, folder: Path) -> Path:
    """Let the Ivy that Spark ships fetch one jar; its "master" is the jar without transitives."""
    program = find_java(settings)
    log_file = settings.spark_folder / "ivy.log"
    log_file.parent.mkdir(parents=True, exist_ok=True)
    command = [program, "-jar", str(_ivy_jar()), "-warn"]
    command += ["-cache", str(folder / "ivy"), "-confs", "master"]
    command += ["-dependency", jar.group, jar.artifact, jar.version]
    command += ["-retrieve", str(folder / "[artifact]-[revision].[ext]")]
    path = folder / jar.file_name
    with log_file.open("w") as log:
        try:
            subprocess.run(
                command, stdout=log, stderr=log, timeout=_FETCH_TIMEOUT_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            log.write(f"ended after {_FETCH_TIMEOUT_SECONDS:.0f} s\n")
    if not path.is_file():
        raise UserError(
            f"cannot fetch {jar.coordinate} from Maven's central repository (log: {log_file})",
            remedy="connect to the network once, or put the jars into a folder and set "
            "RANKLAKE_JARS to it",
        )
    return path


def _ivy_jar() -> Path:
    spec = find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise UserError("pyspark is not installed", remedy="run make setup")
    return next((Path(spec.origin).parent / "jars").glob("ivy-*.jar"))


def _check(path: Path, *, jar: Jar) -> None:
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != jar.sha256:
        raise UserError(
            f"{path} is not the {jar.coordinate} that ranklake was tested with "
            f"(SHA-256 {found}, expected {jar.sha256})",
            remedy="delete the file and start again",
        )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        for jar_path in delta_jars(Settings.from_env()):
            _LOG.info("Delta jar ready: %s", jar_path)
    except UserError as user_error:
        sys.exit(f"ranklake: {user_error}")
