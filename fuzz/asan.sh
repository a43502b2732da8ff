#!/usr/bin/env bash
# The codec's tests, with the extension under AddressSanitizer and UndefinedBehaviorSanitizer.
#
#   fuzz/asan.sh [pytest's options]
#
# PYTHON selects the interpreter, CC the gcc. Everything that is built, including a virtual
# environment, is in .cache/asan; the extension in src/ is left alone.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
cc=${CC:-gcc}
work=$PWD/.cache/asan
paths=(
    tests/test_{masking,utf8,kernels,frames,messages,streams,differential,deflate,connection}.py
    tests/aio/test_{protocol,websocket,streams,text,unsent}.py
)

say() { printf '\n=== %s\n' "$*"; }

# The interpreter is not built with the sanitizers, so it must load them first.
preload=
for library in libasan.so libubsan.so; do
    path=$("$cc" -print-file-name="$library")
    # Without one, gcc prints just the name.
    [ -e "$path" ] || { echo "$cc has no $library (Debian: apt install gcc)" >&2; exit 1; }
    preload+="${preload:+ }$(readlink -f "$path")"
done

say "a virtual environment, and a copy of the sources"
[ -x "$work/venv/bin/python" ] || "$python" -m venv "$work/venv"
python=$work/venv/bin/python
"$python" -m pip install -q --disable-pip-version-check \
    'setuptools>=80' 'cython>=3.3.1' 'h11>=0.16' 'hypothesis>=6.100' 'pytest>=8.3' \
    'pytest-timeout>=2.3' 'trustme>=1.2' zlib-ng isal uvloop aiofastnet
rm -rf "$work/tree"
mkdir -p "$work/tree"
cp -R pyproject.toml setup.py README.md LICENSE docs src tests tools "$work/tree"
find "$work/tree" \( -name '*.so' -o -name '*.egg-info' -o -name __pycache__ \) -prune \
    -exec rm -rf {} +
cd "$work/tree"

say "the extension, under the sanitizers"
sanitize="-fsanitize=address,undefined -fno-sanitize-recover=undefined"
CC=$cc CFLAGS="$sanitize -g -O1 -fno-omit-frame-pointer" LDFLAGS="$sanitize" FASTWS_EXT=require \
    "$python" setup.py -q build_ext --inplace

say "the tests"
# Python's own allocator would hide most errors. What Python keeps until it exits is not a leak;
# fuzz/leaks.py looks for those. The sanitizers write to the file descriptor, which pytest must
# not capture.
export LD_PRELOAD=$preload PYTHONMALLOC=malloc PYTHONPATH=src FASTWS_IMPL=c
export ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=1:allocator_may_return_null=1
export UBSAN_OPTIONS=print_stacktrace=1
exec "$python" -m pytest --capture=sys -p no:faulthandler -p no:cacheprovider -o timeout=600 \
    "${paths[@]}" "$@"
