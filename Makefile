# fedsec: every target does its own set-up; a machine needs Python 3.11 or newer and make, nothing else.
.DEFAULT_GOAL := help
PYTHON  ?= python3
BIN     := .venv/bin
PROFILE ?= quick
OUT     ?= runs
DATA    ?= phantom
SET     ?=

.PHONY: help setup test check format docs lock experiment-isic experiment-chestx experiment-leakage experiment-pgsl bench clean

help:  ## show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'
	@echo
	@echo '  make experiment-isic [DATA=dir] [OUT=dir] [PROFILE=quick|full|large|paper] [SET="key=value ..."]'
	@echo '  make experiment-chestx [DATA=dir] [OUT=dir] [PROFILE=quick|full|large] [SET="key=value ..."]'
	@echo '  make experiment-leakage [DATA=dir] [OUT=dir] [PROFILE=quick|sweep|epsilon|price|ladder|full|large] [SET="key=value ..."]'
	@echo '  make experiment-pgsl [DATA=dir] [OUT=dir] [PROFILE=quick|full|large] [SET="key=value ..."]'

setup: .venv/.ready  ## make .venv from the lock, with compiled bytecode

.venv/.ready: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fedsec needs Python 3.11 or newer: make setup PYTHON=python3.11")'
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet "uv>=0.5"
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes --compile-bytecode requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

test: setup  ## run the tests
	$(BIN)/python -m pytest

check: setup  ## lint, types, format, then the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(MAKE) --no-print-directory docs
	$(MAKE) --no-print-directory test

format: setup  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: setup  ## the documentation as a site in site/; a dead link fails
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=. $(BIN)/mkdocs build --quiet --strict

lock: setup  ## write requirements.lock anew from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 \
	  --extra dev --custom-compile-command "make lock" pyproject.toml -o requirements.lock

experiment-isic: setup  ## federated lesion GAN: attack and FedDetect, with a report
	$(BIN)/fedsec run experiments/isic.toml --profile $(PROFILE) data.source="$(DATA)" run.out="$(OUT)" $(SET)

experiment-chestx: setup  ## federated chest radiograph GAN: attack and defences, with a report
	$(BIN)/fedsec run experiments/chestx.toml --profile $(PROFILE) data.source="$(DATA)" run.out="$(OUT)" $(SET)

experiment-leakage: setup  ## federated chest radiograph classifier: what single updates give away, with a report
	$(BIN)/fedsec run experiments/leakage.toml --profile $(PROFILE) data.source="$(DATA)" run.out="$(OUT)" $(SET)

experiment-pgsl: setup  ## split learning, plain and PGSL: accuracy of every stream, traffic, with a report
	$(BIN)/fedsec run experiments/pgsl.toml --profile $(PROFILE) data.source="$(DATA)" run.out="$(OUT)" $(SET)

bench: setup  ## measure speed and memory on this machine; writes BENCH.json
	$(BIN)/python -m benchmarks.bench

clean:  ## remove the environment, caches and build products; runs/ stays
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
