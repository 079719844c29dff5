"""Find the Java that Spark will run on."""

import os
import re
import shutil
import subprocess

from infra.errors import UserError
from infra.settings import Settings

# What Spark 4.2 supports: 17, 21 and 25, and in practice the versions between them.
OLDEST_JAVA, NEWEST_JAVA = 17, 25
_REMEDY = (
    "install Java 17 (on Debian or Ubuntu: apt-get install openjdk-17-jre-headless) "
    "or set JAVA_HOME to one"
)


def find_java(settings: Settings) -> str:
    """Return the path of the java program that Spark will start.

    Raises:
        UserError: If there is none, it does not run, or Spark does not support its version.
    """
    program = _program(settings)
    try:
        answer = subprocess.run(
            [program, "-version"], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"Java at {program} does not run", remedy=_REMEDY) from error
    version = major_version(answer.stderr + answer.stdout)
    if version is None or not OLDEST_JAVA <= version <= NEWEST_JAVA:
        raise UserError(
            f"Java at {program} is version {version or 'unknown'}, and Spark needs "
            f"{OLDEST_JAVA} to {NEWEST_JAVA}",
            remedy=_REMEDY,
        )
    return program


def major_version(text: str) -> int | None:
    """Return the major version in the answer of `java -version`, or None."""
    match = re.search(r'version "(?:1\.)?(\d+)', text)
    return int(match.group(1)) if match else None


def _program(settings: Settings) -> str:
    if settings.java_home is not None:
        path = settings.java_home / "bin" / "java"
        if not os.access(path, os.X_OK):
            raise UserError(f"JAVA_HOME={settings.java_home} holds no bin/java", remedy=_REMEDY)
        return str(path)
    found = shutil.which("java")
    if found is None:
        raise UserError("Java was not found", remedy=_REMEDY)
    return found
