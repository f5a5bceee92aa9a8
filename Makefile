# One command for people and for CI. `make help` lists the targets; nothing here needs root.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup lock clean

PYTHON ?= python3
# Registries are reached with the certificates of the machine, so that a company's own authority counts.
export UV_SYSTEM_CERTS ?= 1

VENV := .venv
BIN := $(VENV)/bin
LOCKS := requirements/uv.txt requirements/dev.txt

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.setup-done ## the development environment in .venv; does nothing when locks and pyproject.toml are unchanged

# Safe over an existing environment: `venv` repairs it, `uv pip sync` takes out what the locks no longer name.
$(VENV)/.setup-done: pyproject.toml $(LOCKS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make setup: $(PYTHON) is older than 3.11; name a newer one: make setup PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "make setup: $(PYTHON) cannot make virtual environments (on Debian and Ubuntu: install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip sync --quiet --require-hashes $(LOCKS)
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

clean: ## remove what make and the tools made, the environment included
	rm -rf $(VENV) .cache build dist exam .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
