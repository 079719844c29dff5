#!/usr/bin/env bash
# Remove the data home after asking; a pipe may answer with "yes".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

home=$(realpath -m "${RANKLAKE_HOME:-.ranklake}")
if [ ! -d "$home" ]; then
  printf 'nothing to remove: %s does not exist\n' "$home"
  exit 0
fi
# A folder is taken for a data home only if it holds nothing that ranklake does not put there.
for entry in "$home"/* "$home"/.[!.]*; do
  [ -e "$entry" ] || continue
  case $(basename "$entry") in
    jars | spark | simulated | kuairand | movielens | amazon | amazon_sequences | mind | tencentgr | mapped) ;;
    *)
      printf '%s is not only a data home (it holds %s): remove it by hand\n' \
        "$home" "$(basename "$entry")" >&2
      exit 1
      ;;
  esac
done
printf 'remove %s (%s)? [yes/no] ' "$home" "$(du -sh "$home" | cut -f1)"
read -r answer || answer=no
if [ "$answer" != yes ]; then
  printf 'kept\n'
  exit 1
fi
# Without the list of suppressed users a new run would bring back those who were forgotten.
find "$home" -mindepth 1 ! -type d ! -name suppressed_users.json -delete
find "$home" -depth -type d -empty -delete
if [ -d "$home" ]; then
  printf 'removed all of %s but the list of suppressed users\n' "$home"
else
  printf 'removed %s\n' "$home"
fi
if [ -n "${RANKLAKE_LAKE:-}" ]; then
  printf 'kept the lake that RANKLAKE_LAKE names: remove it where it is\n'
fi
