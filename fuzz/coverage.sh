#!/usr/bin/env bash
# Which lines of the extension the codec's tests run. This is next to asan.sh, which runs the same
# tests with a copy of the extension that is built in another special way.
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
# The tests that asan.sh runs, and others that use the codec's classes.
paths=(
    ../tests/test_{masking,utf8,kernels,frames,messages,streams}.py
    ../tests/test_{differential,deflate,connection,codec}.py
    ../tests/aio/test_{protocol,websocket,streams,text,unsent}.py
)
# In per cent. Not 100, because which lines can be traced depends on the release of Cython.
enough=95

say() { printf '\n=== %s\n' "$*"; }

say "a copy of the sources"
rm -rf "$tree"
mkdir -p "$tree"
cp -R pyproject.toml src tests "$tree"
find "$tree" \( -name '*.so' -o -name '*.c' -o -name '*.egg-info' -o -name __pycache__ \) -prune -exec rm -rf {} +
# Cython records the paths of sources relative to the top of the package, and coverage looks for
# them in the current directory, so run it there.
cd "$tree/src"
# The one source that is interpreted as well; here it has to be where it is compiled to.
cp fastws/_py/connection.py fastws/_c/

say "the extension, with a trace of its lines"
# Do not use setup.py: it keeps the generated C out of src/, but Cython.Coverage reads the line
# numbers from it, and expects it next to the modules. Without _NOGIL, functions that are declared
# `nogil` (such as read_header) would count as never run. Cython could report to sys.monitoring
# instead (from Python 3.13 on), but coverage does not attribute that to a .pyx.
CFLAGS="-O1 -DCYTHON_TRACE=1 -DCYTHON_TRACE_NOGIL=1 -DCYTHON_USE_SYS_MONITORING=0" \
    "$python" -m Cython.Build.Cythonize --quiet --force --inplace -X linetrace=True \
    fastws/_c/*.pyx fastws/_c/connection.py

say "the tests"
# Exclude what runs but cannot be traced: the head of an inline function, and a `finally` whose
# `try` was left by `return`.
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
# ctrace is the only core that supports plugins.
export COVERAGE_CORE=ctrace PYTHONPATH=. FASTWS_IMPL=c
"$python" -m pytest -p no:cacheprovider -o timeout=600 "$@" \
    --cov --cov-config=../coveragerc --cov-report= "${paths[@]}"

say "what they ran"
# The .pyx come first: Cython.Coverage finds buffers.pxd, which has no .c of its own, only through
# what was generated from them. The other .pxd have no code.
exec "$python" -m coverage report --rcfile=../coveragerc --show-missing --fail-under="$enough" \
    fastws/_c/*.pyx fastws/_c/{buffers,frames}.pxd
