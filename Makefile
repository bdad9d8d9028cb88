# What a person types, and what it needs: Python 3.11 or newer with venv, and make.
#
#   make run        a demonstration: three nodes on loopback, messages between them, their receipts
#   make test       everything that CI checks: lint, types, floors of the house, tests
#   make test-long  the long form of the tests, in minutes to hours
#   make fuzz       1,200,000 inputs to every decoder that a stranger reaches; FUZZ='--seed 7' repeats a run
#   make bench      measure speed; prints figures; BENCH=history: this part only, of traffic history memory index aging consuming files
#   make wheels     gather msgd and all it needs in build/wheels/, for machines without a network
#   make install    as root: PREFIX (/opt/msgd), units, user, links in BINDIR; DESTDIR for packagers
#   make uninstall  removes what install put there; /etc/msgd and /var/lib/msgd stay
#   make clean      removes build/ and caches; .venv stays
#
# .venv is made once and again when pyproject.toml or the constraints change.

PREFIX     ?= /opt/msgd
BINDIR     ?= /usr/local/bin
UNITDIR    ?= /usr/lib/systemd/system
USERUNITDIR ?= /usr/lib/systemd/user
SYSUSERSDIR ?= /usr/lib/sysusers.d
TMPFILESDIR ?= /usr/lib/tmpfiles.d
DESTDIR    ?=

# The distribution's own Python comes first: the service may not reach one below a home directory.
PYTHON ?= $(shell for p in /usr/bin/python3 /usr/bin/python3.11 /usr/local/bin/python3 python3; do \
    $$p -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

VENV        := .venv
BIN         := $(VENV)/bin
PIP         := -m pip --quiet --disable-pip-version-check
CONSTRAINTS := packaging/constraints.txt
WHEELS      := build/wheels
SOURCES      = $(shell find msgd msgctl -type f -not -name '*.pyc')
PYTEST      := $(BIN)/python -m pytest
PLACES       = DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' BINDIR='$(BINDIR)' UNITDIR='$(UNITDIR)' USERUNITDIR='$(USERUNITDIR)' \
    SYSUSERSDIR='$(SYSUSERSDIR)' TMPFILESDIR='$(TMPFILESDIR)' WHEELS='$(WHEELS)' PYTHON='$(PYTHON)'

.DELETE_ON_ERROR:
.PHONY: run test lint test-long fuzz bench wheels install uninstall clean

run: $(VENV)/.runtime
	@packaging/demo.sh $(BIN)/msgctl

test: lint
	$(PYTEST) -m "not long"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test-long: $(VENV)/.dev
	$(PYTEST) --timeout=7200

fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.fuzz $(FUZZ)

bench: $(VENV)/.dev
	$(BIN)/python -m tests.bench $(BENCH)

# --- the project's own environment ---------------------------------------------------------------

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer with venv here (on Debian: apt-get install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(BIN)/python $(PIP) install -c $(CONSTRAINTS) -e .
	@touch $@

$(VENV)/.dev: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(BIN)/python $(PIP) install -c $(CONSTRAINTS) -e '.[dev]'
	@touch $@ $(VENV)/.runtime

# --- wheels: the only step that needs a network --------------------------------------------------

wheels: $(WHEELS)/.msgd

# What msgd needs, and what builds msgd itself.
$(WHEELS)/.gathered: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	@mkdir -p $(WHEELS) && rm -f $(WHEELS)/*.whl $(WHEELS)/.msgd
	$(BIN)/python $(PIP) wheel -c $(CONSTRAINTS) -w $(WHEELS) . 'setuptools>=66' wheel
	@rm -f $(WHEELS)/msgd-*.whl && touch $@

# build/lib would carry modules that have since been removed.
$(WHEELS)/.msgd: $(WHEELS)/.gathered $(SOURCES) pyproject.toml
	@rm -rf build/lib $(WHEELS)/msgd-*.whl
	$(BIN)/python $(PIP) wheel --no-deps --no-index --find-links $(WHEELS) -w $(WHEELS) .
	@touch $@

# --- installation --------------------------------------------------------------------------------
# With wheels gathered nothing is fetched.

install: $(if $(wildcard $(WHEELS)/.gathered),$(WHEELS)/.msgd)
	@$(PLACES) packaging/install.sh

uninstall:
	@$(PLACES) packaging/uninstall.sh

clean:
	rm -rf build *.egg-info .hypothesis .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
