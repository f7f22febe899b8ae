# A newcomer needs Python 3.11 or newer and nothing else: every target makes what it needs.
#   make demo    a whole cluster, a sample op, one run, and all is gone again
#   make test    everything that can run on this machine; what could not is listed at the end
#   make check   what CI runs, in its order
#   make chaos   a cluster in which everything fails at random, for GYOZA_CHAOS_MINUTES (10)
#   make docs    writes the parts of docs/reference that are drawn from the code

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
TESTS ?= tests

.PHONY: demo test chaos check docs format lint types imports lock clean
.DELETE_ON_ERROR:

demo: $(VENV)/ready
	@$(BIN)/gyoza demo --out demo-output

test: $(VENV)/ready-dev
	$(BIN)/python -m pytest $(TESTS)

chaos: $(VENV)/ready-dev
	GYOZA_CHAOS_MINUTES=$${GYOZA_CHAOS_MINUTES:-10} $(BIN)/python -m pytest -s tests/chaos/test_chaos.py

check: format lint types imports test

format: $(VENV)/ready-dev
	$(BIN)/ruff format --check

lint: $(VENV)/ready-dev
	$(BIN)/ruff check

types: $(VENV)/ready-dev
	$(BIN)/pyright

imports: $(VENV)/ready-dev
	$(BIN)/lint-imports

docs: $(VENV)/ready-dev
	$(BIN)/python -m tools.reference

# The pins of everything that is installed, with hashes. Run it after a change of dependencies in pyproject.toml.
lock: $(VENV)/ready-dev
	$(BIN)/uv pip compile -q pyproject.toml --extra server --group build $(LOCKED) -o requirements.lock
	$(BIN)/uv pip compile -q pyproject.toml --extra server --group build --group dev $(LOCKED) -c requirements.lock \
		-o requirements-dev.lock

LOCKED := --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url \
	--no-emit-find-links

$(VENV)/ready: requirements.lock pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/ready-dev: requirements-dev.lock $(VENV)/ready
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Gyoza needs Python 3.11 or newer: install it, or say make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "Could not make $(VENV) with $(PYTHON): on Debian and Ubuntu, \
	install the package python3-venv" >&2; exit 1; }

clean:
	rm -rf $(VENV) demo-output
