#!/usr/bin/env bash
# Run all static checks; go on after a failure, so that one run shows everything.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

failed=()
step() { # step <name> <command...>
  local name=$1
  shift
  printf -- '-- %s\n' "$name"
  "$@" || failed+=("$name")
}

step "ruff: lint" .venv/bin/ruff check .
step "ruff: format" .venv/bin/ruff format --check --quiet .
step "pyright" .venv/bin/basedpyright
step "import arrows" .venv/bin/lint-imports --no-cache
step "shell scripts" bash -n infra/setup/*.sh .ci/run

if [ ${#failed[@]} -gt 0 ]; then
  printf 'failed: %s\n' "$(IFS=,; echo "${failed[*]}")" >&2
  exit 1
fi
printf 'all static checks passed\n'
