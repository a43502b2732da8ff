#!/usr/bin/env bash
# The suite over both twins, with every dependency at the oldest version that pyproject.toml allows.
#
#   tests/lowest.sh [pytest's options]
#
# PYTHON chooses the interpreter; by default it is the oldest that fastws supports, for which there
# are wheels of them all. What is made, a virtual environment included, is in .cache/lowest.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3.11}
work=$PWD/.cache/lowest
extras=(test hosts)

say() { printf '\n=== %s\n' "$*"; }

"$python" -c '' 2>/dev/null || {
    echo "no $python that runs: install it, or name another by PYTHON" >&2
    exit 1
}

say "a copy of the sources"
rm -rf "$work"
mkdir -p "$work/tree"
git ls-files -z --cached --others --exclude-standard |
    tar --null --files-from=- --create --ignore-failed-read | tar --extract --directory "$work/tree"
cd "$work/tree"

say "a virtual environment with the oldest versions"
"$python" -m venv "$work/venv"
python=$work/venv/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK=1
"$python" -m pip install -q packaging
"$python" tests/lowest.py "${extras[@]}" >"$work/constraints.txt"
cat "$work/constraints.txt"
# Build isolation would bring the newest Cython.
"$python" -m pip install -q --constraint "$work/constraints.txt" setuptools cython
list=$(IFS=, && echo "${extras[*]}")
FASTWS_EXT=require "$python" -m pip install -q --constraint "$work/constraints.txt" \
    --no-build-isolation --editable ".[$list]"
"$python" -m pip check

for twin in c py; do
    say "the suite, twin $twin"
    # The last three need the extra `wheels`. Old versions of Hypothesis take their time.
    FASTWS_IMPL=$twin "$python" -X dev -m pytest \
        --ignore=tests/integrations --ignore=tests/docs/test_hosts.py \
        --ignore=tests/test_{readme,release,wheels}.py \
        -o timeout=300 "$@"
done
