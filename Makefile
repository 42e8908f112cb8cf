# `make` says what there is. Works with GNU make 3.81 and later.
# Everything runs in .venv, which is made when missing: by uv where there is one, else by venv and pip.

SHELL = /bin/sh
BIN = .venv/bin
UV := $(shell command -v uv 2>/dev/null)
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
# Test files do not share hosts, and mostly wait: four of them run at once. Their directories have short names, since sockets lie
# in them; those of a run that failed are kept.
PYTEST = $(BIN)/python -m pytest
PYTEST_ARGS ?= -n 4 --dist loadfile
SHELLCHECK = shellcheck -s sh -e SC2034,SC2154,SC1007,SC2088,SC2015,SC2016

.PHONY: help demo test check fix bench simulate chaos fuzz

help:
	@echo 'make demo    two hosts, four agents, a power cut: a minute, nothing needed, nothing left'
	@echo 'make test    all tests: unit, property, contract, end to end on real hosts, real agent CLIs'
	@echo 'make check   ruff, mypy, import contracts, shellcheck'
	@echo 'make fix     let ruff repair what it can'
	@echo 'make bench   what is measured against which target, and what got worse; a quarter of an hour, BENCH=G3 for one'
	@echo 'make simulate  generated fleets, specs and faults on simulated machines, all cores: N=1000 SEED=n'
	@echo 'make fuzz    hostile input for every parser, MINUTES=1 for each target'
	@echo 'make chaos   random faults on real hosts, ten minutes at most: SEED=n repeats one, SCRIPTS=n, MINUTES=n'

# It makes its own .venv where needed, without the tools for development.
demo:
	@test -n "$(PYTHON)" || { echo 'Python >= 3.11 is needed'; exit 1; }
	@$(PYTHON) demo/run.py

test: .venv/dev
	sh scripts/install-test-deps.sh
	@base=$$(mktemp -d /tmp/rt.XXXXXX) || exit 1; \
	echo '$(PYTEST) $(PYTEST_ARGS)'; \
	$(PYTEST) --basetemp "$$base/t" $(PYTEST_ARGS); code=$$?; \
	[ $$code -ne 0 ] || rm -rf "$$base"; exit $$code

check: .venv/dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	@if command -v shellcheck >/dev/null 2>&1; then \
	  echo '$(SHELLCHECK) reconciler/*/scripts/*.sh'; $(SHELLCHECK) reconciler/*/scripts/*.sh; \
	else echo 'shellcheck is not installed: the shell texts were not checked'; fi

fix: .venv/dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Peers from PyPI are installed into the user's cache when first compared with. More: BENCH='--full', BENCH='--help'.
BENCH ?=
bench: .venv/dev
	$(BIN)/python -m benchmarks $(BENCH)

# Guided by coverage where atheris is installed. It is none of the tools for development: it has no wheels for macOS.
fuzz: .venv/dev
	$(BIN)/python -m fuzz $(or $(TARGET),all) --minutes $(or $(MINUTES),1) --seed $(or $(SEED),1)

# Three hosts and two machines for each script; as root on Linux with networks of their own, else with fewer faults.
chaos: .venv/dev
	$(BIN)/python -m chaos $(if $(SEED),--seed $(SEED)) $(if $(SCRIPTS),--scripts $(SCRIPTS)) \
	  $(if $(MINUTES),--minutes $(MINUTES)) $(CHAOS_ARGS)

# Each batch prints its seed when something breaks; SEED=... tells the same stories again.
simulate: .venv/dev
	$(BIN)/python -m tests.simulation --stories $(or $(N),1000) $(if $(SEED),--seed $(SEED))

# The stamp says which pyproject.toml the environment was made for.
.venv/dev: pyproject.toml
ifneq ($(UV),)
	$(UV) venv --quiet --allow-existing --python '>=3.11' .venv
	$(UV) pip install --quiet --python $(BIN)/python --group dev -e .
else
	@test -n "$(PYTHON)" || { echo 'Python >= 3.11 is needed'; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group dev -e .
endif
	@touch .venv/dev
