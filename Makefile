# Two commands on a fresh machine: `make serve` and `make test`. Each makes its own virtual environment.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# What `make serve` serves: by default the embedded student, which comes with the code.
VARIANT ?= demo
# Options of `make bench-peers`.
PEERS ?=

# Time that `make fuzz` draws inputs for, seconds.
FUZZ_S ?= 300
export FUZZ_S

# What `make images` builds: gateway, worker-cpu, worker-gpu. docs/docker.md has what else can be set.
IMAGES ?= gateway worker-cpu

.PHONY: help serve test test-full test-page fuzz hostile chaos bench bench-peers images lock compose-test check audit fix clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | expand -t 14

serve: $(VENV)/.serve ## install, and serve VARIANT (the embedded student) on localhost:8080
	$(BIN)/efficientsam3 serve $(VARIANT)

test: $(VENV)/.dev ## install and run the tests that fit in minutes (they bring their own Redis)
	$(BIN)/pytest -m 'not slow and not page' -n 2 --dist loadfile --no-loadscope-reorder

test-full: $(VENV)/.dev ## run every test; those of the page where `make test-page` has been
	$(BIN)/pytest

test-page: $(VENV)/.page ## run the tests of the page in Chromium, which apt-get installs where it is missing
	tests/page/chromium
	$(BIN)/pytest -m page tests/page

chaos: $(VENV)/.dev ## disturb a deployment for CHAOS_S seconds (300), verify what clients saw, add up the pieces
	$(BIN)/python -m tests.chaos

fuzz: $(VENV)/.dev ## send malformed requests to every entry point for FUZZ_S seconds (300)
	$(BIN)/python -m tests.fuzz

hostile: $(VENV)/.dev ## measure clicks beside 100 hostile clients of each kind; fails above 1 s
	$(BIN)/python -m tests.load.hostile

bench: $(VENV)/.dev ## measure docs/benchmarks.md anew: an hour, on a machine that does nothing else
	$(BIN)/efficientsam3 variants synthesize es-ev-m-mc-s0 --if-missing
	$(BIN)/python -m tests.load.page docs/benchmarks.md

bench-peers: $(VENV)/.dev ## measure VARIANT beside other serving frameworks, each in an environment of its own
	$(BIN)/python -m tests.load.peers $(PEERS) $(VARIANT)

images: $(VENV)/.images ## build the images IMAGES, list what is in them, print their sizes (needs Docker)
	SYFT=$(BIN)/syft docker/build $(IMAGES)

lock: $(VENV)/.images ## pin anew what the images install
	UV=$(BIN)/uv docker/lock

compose-test: images $(VENV)/.dev ## try the images and docker-compose.yml for real (needs Docker, some minutes)
	$(BIN)/pytest tests/compose/stack.py

check: $(VENV)/.dev ## lint, format, types, import contracts, generated code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python proto/generate.py --check
	$(BIN)/python -m deploy.schema --check

audit: $(VENV)/.audit ## compare pinned and installed versions with advisories (needs the network)
	$(BIN)/python -m tests.audit

fix: $(VENV)/.dev ## what `check` complains about, as far as a tool can mend it
	$(BIN)/python proto/generate.py
	$(BIN)/python -m deploy.schema
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the virtual environment and what the tools cached
	rm -rf $(VENV) .tools .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info

$(BIN)/python:
	@echo "==> a virtual environment in $(VENV)"
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: pyproject.toml | $(BIN)/python
	@echo "==> installing what serving needs"
	$(BIN)/pip install --disable-pip-version-check --progress-bar on -e '.[cpu]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "==> installing what the tests and checks need"
	$(BIN)/pip install --disable-pip-version-check --progress-bar on -e '.[cpu,import,demo,dev]'
	@touch $@ $(VENV)/.serve

$(VENV)/.page: $(VENV)/.dev
	@echo "==> installing what drives a browser"
	$(BIN)/pip install --disable-pip-version-check --progress-bar on -e '.[page]'
	@touch $@

$(VENV)/.audit: pyproject.toml | $(BIN)/python
	@echo "==> installing what asks for advisories"
	$(BIN)/pip install --disable-pip-version-check --progress-bar on -e '.[audit]'
	@touch $@

$(VENV)/.images: pyproject.toml | $(BIN)/python
	@echo "==> installing what images are pinned and listed with"
	$(BIN)/pip install --disable-pip-version-check --progress-bar on -e '.[images]'
	@touch $@
