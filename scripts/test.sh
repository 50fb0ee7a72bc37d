#!/usr/bin/env bash
# Every test with coverage; arguments go to pytest. The report lies in out/coverage.txt, the last lines are pytest's own.
#
# Without arguments in two parts: first, side by side, what does not mind a busy processor; then, one by one, what measures
# time, loads the machine or starts engines. With arguments all that they name runs one by one.
set -euo pipefail
cd "$(dirname "$0")/.."

SIDE_BY_SIDE=(tests/unit tests/property tests/docs)
ALONE=(tests/contract tests/fuzz tests/integration tests/load tests/terraform)

mkdir -p out
.venv/bin/python -m scripts.test_programs
rm -f .coverage .coverage.*
status=0
color=$([[ -t 1 ]] && echo yes || echo no)
: > out/test.log
run() { .venv/bin/coverage run -m pytest --color="$color" "$@" 2>&1 | tee -a out/test.log; }
run_on_two() { .venv/bin/python -m pytest --color="$color" -n 2 --dist worksteal "$@" 2>&1 | tee -a out/test.log; }
if [[ $# -gt 0 ]]; then
  run "$@" || status=$?
else
  # This variable lets the workers, and what they start, write their coverage.
  COVERAGE_PROCESS_START=$PWD/pyproject.toml run_on_two "${SIDE_BY_SIDE[@]}" || status=$?
  run "${ALONE[@]}" || status=$?
fi
.venv/bin/coverage combine --quiet
.venv/bin/coverage report > out/coverage.txt
echo "coverage: $(awk '/^TOTAL/ { print $NF }' out/coverage.txt) of src (lines and branches), see out/coverage.txt"
grep -E '^=+ .*(passed|failed|error).* =+$' out/test.log
exit "$status"
