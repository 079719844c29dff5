#!/usr/bin/env bash
# Resolve the dependencies into locks with hashes and without addresses.
# Usage: lock.sh [--upgrade]     without it the versions of the present lock are kept where they fit.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

compile() { # compile <input> <output> [option...]
  local input=$1 output=$2
  shift 2
  .venv/bin/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header \
    --python-version 3.11 "$@" "$input" -o "$output"
}

compile pyproject.toml requirements.lock --extra dev "$@"
.venv/bin/uv --version | sed -E 's/^uv ([^ ]+).*/uv==\1/' | compile - infra/deploy/bootstrap.lock --no-annotate
printf 'wrote requirements.lock and infra/deploy/bootstrap.lock\n'
