# Every target is one line; `make help` lists them. `.venv` is made on first use and kept.
PYTHON ?= python3
BIN := .venv/bin
LOCK := requirements/dev.txt
SECONDS_A_TARGET ?= 15
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all services test-root fuzz mutate lint types format bench lock clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: .venv/ready  ## make the environment in .venv (once; later calls return at once)

demo: setup  ## watch a model travel to a fleet, and a bad version be taken back
	@$(BIN)/whimbrel demo $(ARGS)

test: setup  ## what every change must pass, in minutes (PostgreSQL and NATS suites where these answer)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not long" $(ARGS)

test-all: test  ## all tests, with worlds, kills, fleets and clean environments (CI=true leaves nothing out)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m long $(ARGS)

services:  ## start PostgreSQL and NATS for the tests, as CI does
	@.ci/services

test-root: setup  ## power cuts on a real ext4 (root, loop devices)
	@$(BIN)/python tests/root/power_cut.py $(ARGS)

fuzz: setup  ## fuzz every parser of bytes from others, SECONDS_A_TARGET each, two side by side (Linux)
	@$(BIN)/python tests/fuzz/run.py --seconds $(SECONDS_A_TARGET) $(ARGS)

mutate: setup  ## change the code a little, and see whether a test notices: make mutate AREA=gate
	@$(BIN)/python tests/mutation/run.py $(AREA) $(ARGS)

lint: setup  ## ruff and the import arrows
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports

types: setup  ## mypy --strict
	@$(BIN)/mypy

format: setup  ## put the code in order
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

bench: setup  ## every benchmark, quick form
	@for b in bench/*.py; do echo "== $$b"; $(BIN)/python $$b --quick || exit 1; done

lock: setup  ## compile the hash-pinned requirements anew 
	@$(BIN)/uv pip compile -q --override requirements/overrides.txt --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --all-extras --group dev pyproject.toml -o $(LOCK)

clean:  ## remove the environment and caches
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .mutation dist

.venv/ready: $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Whimbrel needs Python 3.11 or newer; found $$($(PYTHON) -V). Say which: make setup PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv || { echo "Cannot make .venv. On Debian: apt-get install python3-venv"; exit 1; }
	@echo "setting up .venv (a minute or two, once)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $(LOCK)
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
