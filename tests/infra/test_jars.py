"""Delta's jars are checked, cached, taken from a folder, and missed with one clear line."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from infra.errors import UserError
from infra.jars import DELTA_JARS, Jar, delta_jars
from infra.java import find_java, major_version
from infra.settings import Settings

NAMES = ["delta-spark_4.2_2.13-4.4.0.jar", "delta-storage-4.4.0.jar"]


def test_cache_holds_the_two_jars(jar_cache: Path) -> None:
    assert sorted(path.name for path in jar_cache.glob("*.jar")) == NAMES


def test_cached_jars_need_neither_java_nor_network(tmp_path: Path, jar_cache: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(jar_cache, home / "jars")
    settings = Settings(home=home, java_home=tmp_path / "no-java")
    assert [path.name for path in delta_jars(settings)] == NAMES


def test_folder_of_jars_is_used_as_it_is(tmp_path: Path, jar_cache: Path) -> None:
    settings = Settings(home=tmp_path / "home", jars=jar_cache)
    assert {path.parent for path in delta_jars(settings)} == {jar_cache}
    assert not settings.home.exists()


def test_folder_without_a_jar_is_named(tmp_path: Path, jar_cache: Path) -> None:
    shutil.copy(jar_cache / NAMES[0], tmp_path)
    with pytest.raises(UserError, match=rf"RANKLAKE_JARS={tmp_path} does not hold {NAMES[1]}"):
        delta_jars(Settings(home=tmp_path / "home", jars=tmp_path))


def test_other_bytes_are_refused(tmp_path: Path, jar_cache: Path) -> None:
    for name in NAMES:
        shutil.copy(jar_cache / name, tmp_path)
    with (tmp_path / NAMES[1]).open("ab") as jar:
        jar.write(b"x")
    with pytest.raises(UserError, match=r"delta-storage:4\.4\.0 .*SHA-256 .*delete the file"):
        delta_jars(Settings(home=tmp_path / "home", jars=tmp_path))


def test_coordinate_that_cannot_be_fetched_gives_one_line_and_no_file(tmp_path: Path) -> None:
    absent = Jar(group="io.ranklake.absent", artifact="nothing", version="0", sha256="")
    with pytest.raises(UserError, match=r"cannot fetch io\.ranklake\.absent.*RANKLAKE_JARS"):
        delta_jars(Settings(home=tmp_path), jars=(absent,))
    assert list((tmp_path / "jars").iterdir()) == []


def test_missing_network_is_said_in_one_line(tmp_path: Path, checkout: Path) -> None:
    isolate = ["unshare", "--net", "--map-root-user"]
    if subprocess.run([*isolate, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine does not let a process give up its network")
    answer = subprocess.run(
        [*isolate, sys.executable, "-m", "infra.jars"],
        cwd=checkout,
        env={**os.environ, "RANKLAKE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 1
    last = answer.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ranklake: cannot fetch {DELTA_JARS[0].coordinate}")
    assert "RANKLAKE_JARS" in last


def test_missing_java_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(home=tmp_path)
    with pytest.raises(UserError, match=r"JAVA_HOME=.* holds no bin/java; install Java 17"):
        find_java(replace(settings, java_home=tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="Java was not found; install Java 17"):
        find_java(settings)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'openjdk version \"11.0.2\" 2019-01-15' >&2", "is version 11, and Spark needs 17"),
        ("exit 1", "does not run"),
    ],
)
def test_unusable_java_is_named(tmp_path: Path, script: str, message: str) -> None:
    program = tmp_path / "bin" / "java"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    with pytest.raises(UserError, match=message):
        find_java(Settings(home=tmp_path, java_home=tmp_path))


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('openjdk version "25" 2025-09-16', 25),
        ('java version "1.8.0_402"', 8),
        ("command not found", None),
    ],
)
def test_reads_the_version_of_java(text: str, version: int | None) -> None:
    assert major_version(text) == version
