# Every target says what it does; `make` alone lists them.
VENV := .venv
PY := $(VENV)/bin/python
PYTHON ?= python3
TEST_PROCESSES ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup run demo kit test test-again lint bench bench-log bench-workers bench-fronts faults clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

setup: $(VENV)/.runtime ## make the environment with the runwire command (idempotent)

run: setup ## start everything: PostgreSQL, Valkey, worker, API; prints the address and keys
	@$(VENV)/bin/runwire up

demo: setup ## start everything, run one sample contract review in the terminal, stop
	@$(VENV)/bin/runwire demo

kit: $(VENV)/.dev ## what the tests of your own workflows need

test: $(VENV)/.dev ## all tests, on real servers that are started for them
	@$(PY) -m pytest -n $(TEST_PROCESSES) --dist loadfile

test-again: $(VENV)/.dev ## the few tests that failed once more, each alone; names those that then pass as unsteady
	@$(PY) -m tests.unsteady

lint: $(VENV)/.dev ## ruff and mypy --strict; tsc for TypeScript
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy
	@$(PY) -m tests.node && cd api/web && PATH="$(CURDIR)/$(VENV)/bin:$$PATH" npm run --silent lint

bench: $(VENV)/.dev ## print the figures that the README quotes
	@$(PY) -m tests.bench

bench-log: $(VENV)/.bench ## the log's figures beside its peers'; more with ARGS="--help"
	@$(PY) -m tests.bench.log $(ARGS)

bench-workers: $(VENV)/.dev ## the workers' figures: idle, cancel, crash, 300 live models; more with ARGS="--help"
	@$(PY) -m tests.bench.workers $(ARGS)

bench-fronts: $(VENV)/.bench $(VENV)-langgraph/.made ## what readers cost and how soon they are told, the peers beside; more with ARGS="--help"
	@$(PY) -m tests.bench.fronts $(ARGS)

faults: $(VENV)/.dev ## kill, stop and cut the real processes while runs are going
	@$(PY) -m tests.faults
	@$(PY) -m pytest tests/e2e

clean: ## remove the environment (data stays)
	rm -rf $(VENV) $(VENV)-langgraph *.egg-info

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "runwire needs Python 3.11 or newer; try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements/runtime.txt pyproject.toml | $(VENV)/bin/python
	@echo "Setting up the environment ..." >&2
	@$(PY) -m pip install -qq --disable-pip-version-check --require-hashes -r requirements/runtime.txt
	@$(PY) -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.runtime
	@echo "Setting up what the tests need ..." >&2
	@$(PY) -m pip install -qq --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/.bench: requirements/bench.txt $(VENV)/.runtime
	@echo "Setting up the benchmark's peers ..." >&2
	@$(PY) -m pip install -qq --disable-pip-version-check --require-hashes -r requirements/bench.txt
	@touch $@

# A peer whose pins do not fit ours has an environment of its own.
$(VENV)-langgraph/.made: requirements/bench-langgraph.txt | $(VENV)/bin/python
	@echo "Setting up LangGraph's dev server ..." >&2
	@$(PYTHON) -m venv $(VENV)-langgraph
	@$(VENV)-langgraph/bin/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements/bench-langgraph.txt
	@touch $@
