# Every target sets up what it needs, on a machine with nothing but Python 3.11 or newer (and its venv module).
PYTHON ?= python3
BIN := .venv/bin
# A few more processes than cores (tests/conftest.py); afterwards the 20 slowest tests are listed, and the time in all.
SHARED := --quiet --numprocesses auto --durations 20
# pytest rewrites the tests' modules, which takes each process eight seconds; kept for the next run, also where Python is
# told to keep no compiled modules.
test test-fast: export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast check docs dist clean

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/run.stamp ## the whole story on drawn images: train, perturb, score (5 minutes on two cores)
	$(BIN)/advbn-gen demo --out demo

test: .venv/dev.stamp ## all tests, shared between the cores (10 minutes on two)
	$(BIN)/python -m pytest $(SHARED)

test-fast: .venv/dev.stamp ## most of the tests, without the slow ones (a minute)
	$(BIN)/python -m pytest $(SHARED) -m "not slow"

check: .venv/dev.stamp ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/dev.stamp ## generate the reference pages and build the documentation into site/
	$(BIN)/python -m docs.generate_cli_page
	$(BIN)/python -m docs.generate_reference_page
	$(BIN)/mkdocs build --strict --quiet

dist: .venv/run.stamp ## build sdist and wheel into dist/, and try the wheel with each extra (half an hour)
	$(BIN)/python -m benchmarks.installation

clean: ## remove the environment and everything that was built
	rm -rf .venv build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/run.stamp: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/dev.stamp: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable ".[test,docs]"
	touch $@
