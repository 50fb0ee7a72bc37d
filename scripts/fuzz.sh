#!/usr/bin/env bash
# Fuzz everything that reads bytes from outside: `scripts/fuzz.sh [SECONDS] [arguments for pytest]`, a minute by default.
# An input that breaks a law is printed, with the seed: INFERDOCK_FUZZ_SEED repeats the run.
set -euo pipefail
cd "$(dirname "$0")/.."

export INFERDOCK_FUZZ_SECONDS="${1:-${INFERDOCK_FUZZ_SECONDS:-60}}"
shift || true
exec .venv/bin/python -m pytest -q tests/fuzz "$@"
