# One command for people and for CI. `make help` lists the targets; nothing here needs root.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo servers check format lint types imports unit test contract integration kubernetes world exam lock clean

PYTHON ?= python3
# Registries are reached with the certificates of the machine, so that a company's own authority counts.
export UV_SYSTEM_CERTS ?= 1
# Compiled modules are kept, whatever the caller's shell says: without them each of the many processes that tests start
# compiles all it imports anew, and so does each worker with its thousands of tests.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
LOCKS := requirements/uv.txt requirements/dev.txt

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# An environment with nothing but uv, from its own lock.
define make-venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: $(PYTHON) is older than 3.11; name a newer one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "make: $(PYTHON) cannot make virtual environments (on Debian and Ubuntu: install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
endef

setup: $(VENV)/.setup-done ## the development environment in .venv; does nothing when locks and pyproject.toml are unchanged

demo: $(if $(wildcard $(VENV)/.setup-done),$(VENV)/.setup-done,$(VENV)/.run-done) ## the main job in one command: 400 real jobs on three simulated clusters, one of them lost
	$(BIN)/muster demo --dir build/demo

# Only what runs, and what builds us, from their locks.
$(VENV)/.run-done: pyproject.toml requirements/uv.txt requirements/run.txt requirements/build.txt
	$(call make-venv)
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip sync --quiet --require-hashes requirements/uv.txt requirements/run.txt requirements/build.txt
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# Safe over an existing environment: `venv` repairs it, `uv pip sync` takes out what the locks no longer name.
$(VENV)/.setup-done: pyproject.toml $(LOCKS)
	$(call make-venv)
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip sync --quiet --require-hashes $(LOCKS)
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# Store servers for the contract tests, away from the product's environment: theirs clash with it.
SERVERS := build/servers

servers: $(SERVERS)/.python-done $(SERVERS)/.azurite-done $(SERVERS)/etcd ## the store servers of the tests, in build/

$(SERVERS)/.python-done: tests/servers/requirements.txt | setup
	@mkdir -p $(SERVERS)
	$(PYTHON) -m venv --without-pip $(SERVERS)/venv
	VIRTUAL_ENV=$(CURDIR)/$(SERVERS)/venv $(BIN)/uv pip sync --quiet --require-hashes $<
	@touch $@

$(SERVERS)/.azurite-done: tests/servers/azurite/package.json tests/servers/azurite/package-lock.json
	@command -v npm >/dev/null || { echo "make servers: azurite needs node and npm" >&2; exit 1; }
	@mkdir -p $(SERVERS)
	cp $^ $(SERVERS)/
	npm ci --prefix $(SERVERS) --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

$(SERVERS)/etcd: $(wildcard tests/servers/etcd/*)
	@command -v go >/dev/null || { echo "make servers: etcd needs go" >&2; exit 1; }
	@mkdir -p $(SERVERS)
	cd tests/servers/etcd && go build -mod=readonly -trimpath -ldflags='-s -w' -o $(CURDIR)/$@ .

# A real cluster's control plane, from its own module: a quarter of an hour the first time, then as long as linking takes.
KUBERNETES := $(SERVERS)/kubernetes
KUBERNETES_COMMANDS := kube-apiserver kube-controller-manager kubelet

$(KUBERNETES)/.done: tests/kubernetes/go.mod tests/kubernetes/go.sum
	@command -v go >/dev/null || { echo "make kubernetes: Kubernetes needs go" >&2; exit 1; }
	@mkdir -p $(KUBERNETES)
	cd tests/kubernetes && go build -mod=readonly -trimpath -ldflags='-s -w' -o $(CURDIR)/$(KUBERNETES)/ \
	  $(addprefix k8s.io/kubernetes/cmd/,$(KUBERNETES_COMMANDS))
	@touch $@

# What a real node runs besides its kubelet. runc needs C headers to be built with seccomp, so it is Debian's.
NODE := $(SERVERS)/node
NODE_COMMANDS := containerd containerd-shim-runc-v2 ctr

$(NODE)/.done: tests/kubernetes/real_node/go.mod tests/kubernetes/real_node/go.sum
	@command -v runc >/dev/null && test -x /bin/busybox || { \
	  echo "make kubernetes: a real node needs runc and a static busybox (Debian: runc, busybox-static)" >&2; exit 1; }
	@mkdir -p $(NODE)
	cd tests/kubernetes/real_node && go build -mod=readonly -trimpath -tags no_btrfs,no_devmapper,no_zfs -ldflags='-s -w' \
	  -o $(CURDIR)/$(NODE)/ $(addprefix github.com/containerd/containerd/v2/cmd/,$(NODE_COMMANDS))
	@touch $@

# --- lanes ---

# What mypy --strict reads besides the five packages: the parts of the tests that others build on.
TYPED_TESTS := tests/exam.py tests/import_rules.py $(wildcard tests/builders.py tests/model tests/quality tests/survival tests/world)
CONTRACT := $(wildcard tests/contract tests/linearizability tests/model tests/model_store)
INTEGRATION := $(wildcard tests/integration)
WORLD := $(wildcard tests/world/__main__.py)

check: setup ## format, lint, types, import contracts, unit tests but for the long ones: about a minute
	@start=$$SECONDS; $(MAKE) --no-print-directory format lint types imports unit UNIT='-m "not long"'; \
	  echo "make check: $$((SECONDS - start)) s"

test: setup ## check with all unit tests, then contract and integration tests and 100 seeds of the world: at most 20 min
	@start=$$SECONDS; $(MAKE) --no-print-directory format lint types imports unit contract integration world; \
	  echo "make test: $$((SECONDS - start)) s"

exam: setup servers ## everything at full size, part by part; run it again to resume: at most 80 min
	$(BIN)/python -m tests.exam

format:
	$(BIN)/ruff format --check --quiet .

lint:
	$(BIN)/ruff check --quiet .

types:
	$(BIN)/mypy placement storage federation cluster_agents muster $(TYPED_TESTS)

imports:
	$(BIN)/lint-imports --no-logo > .import-linter.log || { cat .import-linter.log; exit 1; }

# Pure tests share nothing, so they split freely over two processes.
unit:
	$(BIN)/python -m pytest tests/unit -q -n 2 --dist worksteal $(UNIT)

# Half of their time these and the next wait (for servers to start, leases to run out, pods to stop), so three of them
# share two cores.
contract: servers
	$(if $(CONTRACT),$(BIN)/python -m pytest $(CONTRACT) -q -n 3 --dist loadfile)

# Tests that share a fleet stay together (tests/integration/conftest.py).
integration:
	$(if $(INTEGRATION),$(BIN)/python -m pytest $(INTEGRATION) -q -n 3 --dist loadscope)

# Each of the three files has a cluster of its own. The real node wants root.
kubernetes: servers $(KUBERNETES)/.done $(NODE)/.done ## agents, a real node, and the cases simkube is held to, on a real Kubernetes
	$(BIN)/python -m pytest tests/kubernetes -q -n 2 --dist loadfile

world:
	$(if $(WORLD),$(BIN)/python -m tests.world --seeds 0:100 --minutes 15 --jobs 2)

# --- housekeeping ---

# No index addresses in the locks: who installs decides where from.
COMPILE = VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
  --generate-hashes --no-emit-index-url --no-header

lock: setup ## resolve pyproject.toml anew, within its bounds, into requirements/ (UPGRADE=--upgrade for the newest)
	$(COMPILE) $(UPGRADE) pyproject.toml --extra local --extra fast -o requirements/run.txt
	$(COMPILE) $(UPGRADE) pyproject.toml --extra local --extra fast --extra etcd --extra objectstore --extra gpu --extra guard \
	  --extra plots --group dev -c requirements/run.txt -o requirements/dev.txt
	$(COMPILE) $(UPGRADE) tests/servers/requirements.in -o tests/servers/requirements.txt
	printf 'editables>=0.5\nhatchling>=1.27\n' | $(COMPILE) --no-annotate -c requirements/dev.txt - -o requirements/build.txt
	$(BIN)/uv --version | sed 's/^uv \([^ ]*\).*/uv==\1/' | $(COMPILE) --no-annotate - -o requirements/uv.txt

clean: ## remove what make and the tools made, the environment included
	rm -rf $(VENV) .cache .exam .import-linter.log build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
