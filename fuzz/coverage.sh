#!/usr/bin/env bash
# Which lines of the extension the codec's tests run. It is here beside asan.sh, which runs the
# same tests over a copy of the extension that is built in another special way.
#
#   fuzz/coverage.sh [pytest's options]
#
# PYTHON chooses the interpreter, by its name or whole path; it needs the `test` extra, which
# `make -C tools coverage` sees to. All that is made is in .cache/coverage; the extension in src/
# is left alone.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
tree=$PWD/.cache/coverage/tree
# Those that asan.sh runs, and those that use the codec's classes otherwise.
paths=(
    ../tests/test_{masking,utf8,kernels,frames,messages,differential,deflate,connection,codec}.py
    ../tests/aio/test_{protocol,websocket,unsent}.py
)
# Per cent. Not all: which lines can be traced is for each release of Cython to say.
enough=95

say() { printf '\n=== %s\n' "$*"; }

say "a copy of the sources"
rm -rf "$tree"
mkdir -p "$tree"
cp -R pyproject.toml src tests "$tree"
find "$tree" \( -name '*.so' -o -name '*.c' -o -name '*.egg-info' -o -name __pycache__ \) -prune -exec rm -rf {} +
# Cython writes down where a source is as seen from the top of the package, and coverage looks
# for it from where it runs: so this is where it runs.
cd "$tree/src"

say "the extension, with a trace of its lines"
# Not by setup.py: it keeps the generated C out of src/, but Cython.Coverage reads in it which
# lines there are, and expects it next to the modules. Without _NOGIL, functions that are
# declared `nogil` (such as read_header) would count as never run. What Cython would report to
# sys.monitoring instead (from Python 3.13 on), coverage does not attribute to a .pyx.
CFLAGS="-O1 -DCYTHON_TRACE=1 -DCYTHON_TRACE_NOGIL=1 -DCYTHON_USE_SYS_MONITORING=0" \
    "$python" -m Cython.Build.Cythonize --quiet --force --inplace -X linetrace=True fastws/_c/*.pyx

say "the tests"
# Excluded is what runs, but cannot be seen to: the head of an inline function, and what a
# `finally` does when its `try` was left by `return`.
cat >"$tree/coveragerc" <<'END'
[run]
plugins = Cython.Coverage
data_file = ../coverage
include = fastws/_c/*.p[yx][xd]
[report]
exclude_also =
    ^ *cdef inline
    ^ +release\(&octets\)
END
# ctrace is the one core that knows plugins.
export COVERAGE_CORE=ctrace PYTHONPATH=. FASTWS_IMPL=c
"$python" -m pytest -p no:cacheprovider -o timeout=600 "$@" \
    --cov --cov-config=../coveragerc --cov-report= "${paths[@]}"

say "what they ran"
# The .pyx come first: only by what was made of them does Cython.Coverage find buffers.pxd,
# of which no .c bears the name. The other .pxd have no code.
exec "$python" -m coverage report --rcfile=../coveragerc --show-missing --fail-under="$enough" \
    fastws/_c/*.pyx fastws/_c/{buffers,frames}.pxd
