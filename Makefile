# `make train` and `make test` are all a fresh machine needs: python3 (3.11 or newer), pip and make.
PYTHON ?= python3
BIN := .venv/bin
REQUIREMENTS := $(shell $(PYTHON) -c 'import sys; print("requirements/py311.txt" if sys.version_info < (3, 12) else "requirements/py312.txt")')
ARGS ?=
# Tests are mostly compilation, one core each.
WORKERS ?= -n auto --maxprocesses 8 --dist worksteal

.PHONY: help setup train test test-slow lint experiments bench clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

setup: .venv/ready  ## make .venv with the tested versions

.venv/ready: $(REQUIREMENTS) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || ($(PYTHON) -m pip install --user virtualenv && $(PYTHON) -m virtualenv .venv)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(REQUIREMENTS)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

train: setup  ## PPO with an S5 memory solves the T-maze; ARGS="--env tmaze-100" for more
	$(BIN)/jaxrl-seq train ppo --env tmaze --model s5 $(ARGS)

test: setup  ## the tests (minutes)
	$(BIN)/python -m pytest $(WORKERS) $(ARGS)

test-slow: setup  ## the learning tests too (an hour)
	$(BIN)/python -m pytest $(WORKERS) -m "slow or not slow" $(ARGS)

lint: setup  ## formatting, lints and types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyright

experiments: setup  ## every experiment at CPU scale, then the table in experiments/README.md
	$(BIN)/python -m experiments.run_all $(ARGS)

bench: setup  ## benchmarks; JSON goes to benchmarks/results
	$(BIN)/python -m benchmarks.env_sps $(ARGS)
	$(BIN)/python -m benchmarks.train_sps $(ARGS)
	$(BIN)/python -m benchmarks.models $(ARGS)

clean:  ## remove .venv and caches (runs stay)
	rm -rf .venv .cache .pytest_cache .ruff_cache build *.egg-info
