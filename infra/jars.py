"""Jars beside Spark's own: fetched once through Spark's Ivy, checked by SHA-256, kept in a cache.

Delta needs two. A lake on an object store needs its file system too: for `s3a` Hadoop's module and
the parts of Amazon's SDK that it calls (`s3a_jars.txt`, 13 MB); for others the setting names them.
"""

import hashlib
import logging
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from infra.errors import UserError
from infra.java import find_java
from infra.lake_location import StoreFolder
from infra.settings import Settings

_LOG = logging.getLogger(__name__)
_FETCH_TIMEOUT_SECONDS = 300.0
_S3A_LIST = Path(__file__).with_name("s3a_jars.txt")
_COORDINATE = re.compile(r"[\w.-]+(:[\w.-]+){2}")


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
    return _cached(jars, folder=settings.jar_cache, settings=settings)


def s3a_jars(settings: Settings) -> tuple[Path, ...]:
    """Return the paths of the jars that `s3a://` needs, fetching the missing ones first.

    They are in the folder `s3a` beside Delta's.

    Raises:
        UserError: If a jar cannot be fetched, or has other bytes than expected.
    """
    lines = [line.split() for line in _S3A_LIST.read_text().splitlines() if line[0] != "#"]
    parts = [(*coordinate.split(":"), digest) for coordinate, digest in lines]
    jars = tuple(Jar(group=g, artifact=a, version=v, sha256=digest) for g, a, v, digest in parts)
    return _cached(jars, folder=settings.jar_cache / "s3a", settings=settings)


def lake_jars(settings: Settings) -> tuple[Path, ...]:
    """Return the paths of the jars of the lake's file system; none for a local lake.

    Raises:
        UserError: If the setting names a folder without jars, or an `s3a` jar cannot be had.
    """
    if settings.lake_jars is None:
        is_s3a = isinstance(settings.lake, StoreFolder) and settings.lake.scheme == "s3a"
        return s3a_jars(settings) if is_s3a else ()
    if lake_packages(settings):
        return ()
    folder = Path(settings.lake_jars)
    if not (found := tuple(sorted(folder.glob("*.jar")))):
        raise UserError(
            f"RANKLAKE_LAKE_JARS={folder} is neither a folder with jars nor a list of "
            "group:artifact:version with commas between",
            remedy="correct it, or unset it for a local lake or the tested jars of s3a",
        )
    return found


def lake_packages(settings: Settings) -> str:
    """Return the Maven coordinates that Spark is to resolve for the lake, or an empty text.

    Spark's own Ivy fetches them with all that they need; nothing checks their bytes.
    """
    words = (settings.lake_jars or "").split(",")
    is_list = all(_COORDINATE.fullmatch(word.strip()) for word in words)
    return ",".join(word.strip() for word in words) if is_list else ""


def _cached(jars: tuple[Jar, ...], *, folder: Path, settings: Settings) -> tuple[Path, ...]:
    missing = tuple(jar for jar in jars if not (folder / jar.file_name).is_file())
    if missing and settings.jars is not None:
        names = ", ".join(jar.file_name for jar in missing)
        raise UserError(
            f"RANKLAKE_JARS={settings.jars} does not hold {names}"
            + ("" if folder == settings.jars else f" in {folder.name}"),
            remedy="put the file there or unset RANKLAKE_JARS",
        )
    if missing:
        _fetch(missing, into=folder, settings=settings)
    for jar in jars:
        _check(folder / jar.file_name, jar=jar)
    return tuple(folder / jar.file_name for jar in jars)


def _fetch(jars: tuple[Jar, ...], *, into: Path, settings: Settings) -> None:
    into.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=into, prefix=".fetch-") as folder:
        names = jars[0].coordinate + (f" and {len(jars) - 1} more" if len(jars) > 1 else "")
        _LOG.info("fetching %s once, into %s", names, into)
        _run_ivy(jars, settings=settings, folder=Path(folder))
        for jar in jars:
            _check(Path(folder) / jar.file_name, jar=jar)
        for jar in jars:
            (Path(folder) / jar.file_name).replace(into / jar.file_name)


def _run_ivy(jars: tuple[Jar, ...], *, settings: Settings, folder: Path) -> None:
    """Let the Ivy that Spark ships fetch jars; the "master" of each is it without transitives."""
    program = find_java(settings)
    log_file = settings.spark_folder / "ivy.log"
    log_file.parent.mkdir(parents=True, exist_ok=True)
    wanted = folder / "ivy.xml"
    wanted.write_text(_ivy_module(jars))
    command = [program, "-jar", str(_ivy_jar()), "-warn"]
    command += ["-cache", str(folder / "ivy"), "-ivy", str(wanted), "-confs", "default"]
    command += ["-retrieve", str(folder / "[artifact]-[revision].[ext]")]
    with log_file.open("w") as log:
        try:
            subprocess.run(
                command, stdout=log, stderr=log, timeout=_FETCH_TIMEOUT_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            log.write(f"ended after {_FETCH_TIMEOUT_SECONDS:.0f} s\n")
    missing = [jar for jar in jars if not (folder / jar.file_name).is_file()]
    if missing:
        raise UserError(
            f"cannot fetch {missing[0].coordinate} from Maven's central repository "
            f"(log: {log_file})",
            remedy="connect to the network once, or put the jars into a folder and set "
            "RANKLAKE_JARS to it",
        )


def _ivy_module(jars: tuple[Jar, ...]) -> str:
    lines = [
        f'<dependency org="{jar.group}" name="{jar.artifact}" rev="{jar.version}" '
        'conf="default->master"/>'
        for jar in jars
    ]
    return (
        '<ivy-module version="2.0"><info organisation="io.ranklake" module="jars"/>'
        '<configurations><conf name="default"/></configurations>'
        f"<dependencies>{''.join(lines)}</dependencies></ivy-module>"
    )


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
        for jar_path in (*delta_jars(found := Settings.from_env()), *lake_jars(found)):
            _LOG.info("jar ready: %s", jar_path)
    except UserError as user_error:
        sys.exit(f"ranklake: {user_error}")
