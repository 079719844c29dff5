#!/usr/bin/env bash
# Make .venv from the locked packages, with Java and Delta's jars; do nothing if it is up to date.
# Usage: install.sh [--check]     --check only says what was found or is missing.
# PYTHON names the interpreter to use, JAVA_HOME the Java.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

LOCK=requirements.lock
BOOTSTRAP=infra/deploy/bootstrap.lock
STAMP=.venv/ranklake-lock.sha256
APT_IS_FRESH=no

say() { printf 'ranklake set-up: %s\n' "$*"; }
stop() { printf 'ranklake set-up: %s\n' "$*" >&2; exit 1; }

can_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

apt_install() { # apt_install <package>...: the first one that this system offers
  if [ "$APT_IS_FRESH" = no ]; then
    say "updating the list of system packages"
    apt-get update -qq || stop "apt-get update failed: check the network"
    APT_IS_FRESH=yes
  fi
  local package
  for package in "$@"; do
    apt-cache show "$package" >/dev/null 2>&1 || continue
    say "installing $package"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" \
      >/dev/null || stop "apt-get could not install $package"
    return 0
  done
  stop "none of these system packages exists here: $*"
}

is_supported_python() { # a pyenv shim exists but fails where its version is not chosen
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null
}

find_python() {
  local candidate
  if [ -n "${PYTHON:-}" ]; then
    is_supported_python "$PYTHON" || stop "PYTHON=$PYTHON is not a working Python 3.11 or 3.12"
    printf '%s\n' "$PYTHON"
    return 0
  fi
  for candidate in python3 python3.12 python3.11; do
    if is_supported_python "$candidate"; then
      command -v "$candidate"
      return 0
    fi
  done
  stop "no Python 3.11 or 3.12 was found: install python3.12 or set PYTHON to one"
}

java_version() { # prints the major version, or nothing
  local program=java
  [ -z "${JAVA_HOME:-}" ] || program="$JAVA_HOME/bin/java"
  "$program" -version 2>&1 | sed -nE 's/.*version "(1\.)?([0-9]+).*/\2/p' || true
}

is_supported_java() { [ -n "$1" ] && [ "$1" -ge 17 ] && [ "$1" -le 25 ]; }

need_java() {
  local version
  version=$(java_version)
  if ! is_supported_java "$version"; then
    [ -z "${JAVA_HOME:-}" ] ||
      stop "JAVA_HOME=$JAVA_HOME holds Java ${version:-none}: set it to Java 17 to 25, or unset it"
    can_install ||
      stop "Java 17 to 25 is needed (found: ${version:-none}): install openjdk-17-jre-headless"
    [ "$ONLY_CHECK" = no ] || { say "Java: to be installed"; return 0; }
    apt_install openjdk-17-jre-headless openjdk-21-jre-headless default-jre-headless
    version=$(java_version)
    is_supported_java "$version" ||
      stop "java is still version ${version:-none}: set JAVA_HOME to the installed one"
  fi
  say "Java $version"
}

need_venv() { # need_venv <python>
  "$1" -c 'import ensurepip, venv' 2>/dev/null && return 0
  local package
  package=$("$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
  can_install || stop "$1 cannot make virtual environments: install $package"
  [ "$ONLY_CHECK" = no ] || { say "$package: to be installed"; return 0; }
  apt_install "$package" python3-venv
  "$1" -c 'import ensurepip, venv' 2>/dev/null || stop "$1 still cannot make one: set PYTHON"
}

note_compiler() {
  command -v g++ >/dev/null || command -v c++ >/dev/null ||
    say "no C++ compiler: torch.compile stays off (g++ is optional)"
}

wanted_stamp() { # the locks and the interpreter that .venv was made from
  cat "$LOCK" "$BOOTSTRAP" | sha256sum | cut -d' ' -f1
}

is_up_to_date() {
  [ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$(wanted_stamp)" ] && is_supported_python .venv/bin/python
}

make_venv() { # make_venv <python>
  if ! { [ -x .venv/bin/python ] && is_supported_python .venv/bin/python; }; then
    say "making .venv with $1"
    "$1" -m venv --clear .venv
  fi
  rm -f "$STAMP"
  .venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip >/dev/null
  say "installing uv"
  .venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps \
    -r "$BOOTSTRAP" || stop "uv could not be installed: check the network"
  say "installing the packages of $LOCK (about 7 GB, minutes the first time)"
  .venv/bin/uv pip sync --compile-bytecode --require-hashes --python .venv/bin/python \
    "$LOCK" "$BOOTSTRAP" ||
    stop "the packages of $LOCK could not be installed: check the network and the disk"
}

ONLY_CHECK=no
[ "${1:-}" != --check ] || ONLY_CHECK=yes
if [ "$ONLY_CHECK" = no ] && is_up_to_date; then exit 0; fi

PYTHON_FOUND=$(find_python)
say "Python $PYTHON_FOUND"
need_venv "$PYTHON_FOUND"
need_java
note_compiler
[ "$ONLY_CHECK" = no ] || exit 0
make_venv "$PYTHON_FOUND"
.venv/bin/python -m infra.jars
wanted_stamp >"$STAMP"
say "ready"
