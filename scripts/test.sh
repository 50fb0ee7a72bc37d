#!/usr/bin/env bash
# Every test with coverage; arguments go to pytest. The report lies in out/coverage.txt, the last line is pytest's own.
set -euo pipefail
cd "$(dirname "$0")/.."

mkdir -p out
.venv/bin/python -m scripts.test_programs
rm -f .coverage .coverage.*
status=0
color=$([[ -t 1 ]] && echo yes || echo no)
.venv/bin/coverage run -m pytest --color="$color" "$@" 2>&1 | tee out/test.log || status=$?
.venv/bin/coverage combine --quiet
.venv/bin/coverage report > out/coverage.txt
echo "coverage: $(awk '/^TOTAL/ { print $NF }' out/coverage.txt) of src (lines and branches), see out/coverage.txt"
tail -n 1 out/test.log
exit "$status"
