# What a developer runs. A user of the tool needs none of it: `pip install sandbox-k8s`, then `sandbox up`.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory --no-builtin-rules

PYTHON ?= $(or $(shell command -v python3.11),python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Empty is unset: else every process of the tests would compile all modules anew.
export PYTHONDONTWRITEBYTECODE :=
# `sandbox cluster create` says which Debian packages are missing; here it installs them (as root).
export SANDBOX_INSTALL_PACKAGES := 1

CLUSTER ?= demo
TEST_CLUSTER := $(or $(SANDBOX_TEST_CLUSTER),sandbox-test)
# All run on the one test cluster, each test in a namespace of its own; they mostly wait for it, so two more than cores.
E2E_WORKERS ?= 4
UNIT_WORKERS ?= 2
# Passed on to pytest, such as PYTEST_ARGS='-k rollback -x'.
PYTEST_ARGS ?=

##@ Use it
.PHONY: demo
demo: $(READY) ## From nothing to a running branch: cluster, example repositories, images, sandbox up
	@scripts/install-packages examples
	@scripts/demo $(CLUSTER)

.PHONY: cluster
cluster: $(READY) ## An embedded cluster to try things on (CLUSTER=name)
	@$(BIN)/sandbox cluster create $(CLUSTER) --provider embedded

.PHONY: setup
setup: $(READY) ## The virtual environment with the tool in it

##@ Test it
# The checks and the build of the embedded cluster's programs (minutes, the first time) run side by side;
# then the cluster's tests, whose closing line is the last one.
.PHONY: test
test: $(READY) ## Everything: style, types, import contract, unit tests, end-to-end tests on a real cluster
	@scripts/install-packages examples browser
	@$(MAKE) -k -j4 --output-sync=target lint types imports unit binaries
	@$(BIN)/pytest tests/e2e --numprocesses=$(E2E_WORKERS) --dist=loadfile --no-loadscope-reorder $(PYTEST_ARGS)

.PHONY: lint
lint: $(READY) ## Style (ruff)
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { $(BIN)/ruff format --check .; exit 1; }

.PHONY: types
types: $(READY) ## Types (mypy, strict)
	@$(BIN)/mypy

.PHONY: imports
imports: $(READY) ## Which room may import which (import-linter)
	@said=$$($(BIN)/lint-imports --no-cache 2>&1) || { echo "$$said"; exit 1; }

.PHONY: unit
unit: $(READY) ## Unit tests: no cluster, no network
	@$(BIN)/pytest tests/unit --quiet --numprocesses=$(UNIT_WORKERS) $(PYTEST_ARGS)

.PHONY: e2e
e2e: $(READY) binaries ## End-to-end tests on the embedded cluster
	@scripts/install-packages examples browser
	@$(BIN)/pytest tests/e2e --numprocesses=$(E2E_WORKERS) --dist=loadfile --no-loadscope-reorder $(PYTEST_ARGS)

.PHONY: binaries
binaries: $(READY)
	@$(BIN)/python scripts/build_embedded.py

.PHONY: bench
bench: $(READY) binaries ## Every claim of speed against its peer (ratios); minutes
	@scripts/install-packages examples
	@scripts/bench $(ROUNDS)

##@ Keep it
.PHONY: format
format: $(READY) ## Mend style
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .

.PHONY: docs
docs: $(READY) ## docs/commands.md from the commands themselves
	@$(BIN)/python docs/generate_commands.py

.PHONY: chart
chart: $(READY) ## charts/sandbox: quota profiles and schema of its values from their one source
	@$(BIN)/python charts/generate.py

.PHONY: wheel
wheel: $(READY) ## dist/*.whl
	@$(BIN)/python -m build --wheel --no-isolation --outdir dist

.PHONY: lock
lock: $(READY) ## constraints.txt from what is installed now (upgrade with pip first)
	@scripts/lock-dependencies $(BIN)/python

.PHONY: clean
clean: ## Delete the clusters of the demonstration and of the tests, the repositories, what tools left behind
	@[ ! -x $(BIN)/sandbox ] || $(BIN)/sandbox cluster delete $(CLUSTER) $(TEST_CLUSTER) $(TEST_CLUSTER)-cp --yes
	@rm -rf .build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf

.PHONY: distclean
distclean: clean ## … and the virtual environment
	@rm -rf $(VENV)

$(READY): pyproject.toml constraints.txt
	@PYTHON='$(PYTHON)' scripts/install-packages setup
	@$(BIN)/python -c '' 2>/dev/null || { echo 'Making $(VENV)' >&2; '$(PYTHON)' -m venv --clear $(VENV); }
	@echo 'Installing dependencies (constraints.txt): a few minutes the first time, with nothing to see' >&2
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt hatchling editables
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	@touch $@

.PHONY: help
help:
	@awk 'BEGIN {FS = ":.*## "} /^##@ / {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z0-9-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
