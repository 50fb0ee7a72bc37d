#!/usr/bin/env bash
# Every test; arguments go to pytest. The last lines are pytest's own. COVERAGE=1 (make coverage) measures coverage too,
# which doubles the time: the report lies in out/coverage.txt.
#
# Without arguments in two parts: first, side by side, what does not mind a busy processor; then, one by one, what measures
# time, loads the machine or starts engines (marker "alone"). With arguments all that they name runs one by one.
set -euo pipefail
cd "$(dirname "$0")/.."

mkdir -p out
.venv/bin/python -m scripts.test_programs
pytest=(-m pytest "--color=$([[ -t 1 ]] && echo yes || echo no)")
alone=(.venv/bin/python)
together=(.venv/bin/python)
if [[ -n "${COVERAGE:-}" ]]; then
  rm -f .coverage .coverage.*
  alone=(.venv/bin/coverage run)
  # This variable lets the workers, and what they start, write their coverage.
  together=(env "COVERAGE_PROCESS_START=$PWD/pyproject.toml" .venv/bin/python)
fi
workers=$(($(nproc) + 1)) # many tests wait for something most of their time
status=0
: > out/test.log
run() { "$@" 2>&1 | tee -a out/test.log; }
if [[ $# -gt 0 ]]; then
  run "${alone[@]}" "${pytest[@]}" "$@" || status=$?
else
  run "${together[@]}" "${pytest[@]}" -n "$workers" --dist worksteal --durations=40 -m "not alone" || status=$?
  run "${alone[@]}" "${pytest[@]}" --durations=40 -m alone || status=$?
fi
if [[ -n "${COVERAGE:-}" ]]; then
  .venv/bin/coverage combine --quiet
  .venv/bin/coverage report > out/coverage.txt
  echo "coverage: $(awk '/^TOTAL/ { print $NF }' out/coverage.txt) of src (lines and branches), see out/coverage.txt"
fi
grep -E '^=+ .*(passed|failed|error).* =+$' out/test.log || true
exit "$status"
