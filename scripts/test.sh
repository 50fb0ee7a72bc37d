#!/usr/bin/env bash
# Every test; arguments go to pytest. The last lines are pytest's own. COVERAGE=1 (make coverage) measures coverage too,
# which doubles the time: the report lies in out/coverage.txt.
#
# Without arguments in two parts: first, side by side, what does not mind a busy processor; then, one by one, what measures
# time, loads the machine or starts engines (marker "alone"). Of either part up to ten failed tests are run a second time,
# one by one: those that pass then are named as unsteady in the last lines and in out/unsteady.txt (docs/decisions/0027).
# With arguments all that they name runs one by one, once.
set -euo pipefail
cd "$(dirname "$0")/.."

mkdir -p out
.venv/bin/python -m scripts.test_programs
alone=(.venv/bin/python)
together=(.venv/bin/python)
if [[ -n "${COVERAGE:-}" ]]; then
  rm -f .coverage .coverage.*
  alone=(.venv/bin/coverage run)
  # This variable lets the workers, and what they start, write their coverage.
  together=(env "COVERAGE_PROCESS_START=$PWD/pyproject.toml" .venv/bin/python)
fi
pytest=(-m pytest "--color=$([[ -t 1 ]] && echo yes || echo no)")
workers=$(($(nproc) + 1)) # many tests wait for something most of their time
second_runs=10            # more failures than these are no chance
status=0
: > out/test.log
: > out/unsteady.txt
run() { "$@" 2>&1 | tee -a out/test.log; }

# failed CACHE: the tests that failed in the run which kept its memory there, one a line.
failed() { .venv/bin/python -c 'import json, sys; print(*json.load(open(sys.argv[1])), sep="\n")' "$1/v/cache/lastfailed"; }

# part NAME COMMAND...: runs it, and what failed a second time, one by one.
part() {
  local memory="out/pytest-$1" code=0 first
  echo "Tests, $1:" | tee -a out/test.log
  shift
  rm -rf "$memory"
  run "$@" --durations=40 -o "cache_dir=$memory" || code=$?
  ((code == 1)) || return "$code" # passed, or interrupted, misused, broken: not about single tests
  first="$(failed "$memory")"
  (($(wc -l <<< "$first") <= second_runs)) || return "$code"
  echo "A second run, one by one, of what failed:" | tee -a out/test.log
  run "${alone[@]}" "${pytest[@]}" -o "cache_dir=$memory" --last-failed --last-failed-no-failures none || return "$code"
  echo "$first" >> out/unsteady.txt
}

if [[ $# -gt 0 ]]; then
  run "${alone[@]}" "${pytest[@]}" "$@" || status=$?
else
  part together "${together[@]}" "${pytest[@]}" -n "$workers" --dist worksteal -m "not alone" || status=$?
  part alone "${alone[@]}" "${pytest[@]}" -m alone || status=$?
fi
if [[ -n "${COVERAGE:-}" ]]; then
  .venv/bin/coverage combine --quiet
  .venv/bin/coverage report > out/coverage.txt
  echo "coverage: $(awk '/^TOTAL/ { print $NF }' out/coverage.txt) of src (lines and branches), see out/coverage.txt"
fi
grep -E '^=+ .*(passed|failed|error).* =+$' out/test.log || true
if [[ -s out/unsteady.txt ]]; then
  echo "UNSTEADY: failed in the first run, passed in the second:"
  sed 's/^/  /' out/unsteady.txt
fi
exit "$status"
