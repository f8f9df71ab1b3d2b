# The commands a person types. Each one first creates .venv and installs what is missing, so a
# machine needs only Python (3.10 to 3.13, with its venv module), pip and make.
#
#   make train                            train Pong with flagfiles/pong.flags
#   make train ARGS="--level_name=..."    the same with further flags
#   make train ARGS=--flagfile=flagfiles/catch.flags    another preset instead of that of Pong
#   make test                             all tests, in three processes (see tests/conftest.py)
#   make test ARGS="-n0 tests/vtrace_test.py"    one file, in one process
#   make quick                            those that start no cluster: two to four minutes on two cores
#   make lint                             ruff, its formatter, the layers of imports, types
#   make format                           ruff: formats every file
#   make clean                            removes .venv and caches; runs/ stays

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SHELL := /bin/sh
# A preset that ARGS names replaces that of Pong.
PRESET = $(if $(findstring --flagfile,$(ARGS)),,--flagfile=flagfiles/pong.flags)

.PHONY: help train test quick lint format clean same-python
.DELETE_ON_ERROR:

help:
	@sed -n 's/^#   //p' Makefile

train: same-python $(VENV)/.requirements
	@$(BIN)/python experiment.py $(PRESET) $(ARGS)

test: same-python $(VENV)/.requirements-dev
	@$(BIN)/python -m pytest --numprocesses=3 $(ARGS)

quick: same-python $(VENV)/.requirements-dev
	@$(BIN)/python -m pytest --numprocesses=2 -m "not cluster and not slow" $(ARGS)

lint: same-python $(VENV)/.requirements-dev
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check --quiet . || { \
	  $(BIN)/python -m ruff format --diff . >&2; echo "make format mends this." >&2; exit 1; }
	@$(BIN)/python .ci/sizes .
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/pyright

format: same-python $(VENV)/.requirements-dev
	@$(BIN)/python -m ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A Python that somebody names is the one that is used, or it is said why not: `.venv` stays that of the
# Python which made it.
WHICH = import os, platform, sys; \
  print("Python", platform.python_version(), "in", os.path.realpath(sys.base_prefix))
NOT_FOUND = $(PYTHON) was not found: name another Python with  make PYTHON=/path/to/python3

same-python:
ifneq ($(filter command environment,$(firstword $(origin PYTHON))),)
	@test ! -x $(BIN)/python || command -v "$(PYTHON)" >/dev/null || { \
	  echo "$(NOT_FOUND)" >&2; exit 1; }
	@test ! -x $(BIN)/python || { \
	  asked=$$("$(PYTHON)" -c '$(WHICH)') && there=$$($(BIN)/python -c '$(WHICH)') || { \
	    echo "$(PYTHON) or $(BIN)/python cannot be run as a Python" >&2; exit 1; }; \
	  test "$$asked" = "$$there" || { \
	    echo "$(VENV) was made by $$there, but PYTHON=$(PYTHON) is $$asked: leave PYTHON out," \
	      "or have $(VENV) made anew: make clean, and this command again" >&2; exit 1; }; }
endif

# A stamp is newer than the lists of packages that it stands for.
$(VENV)/.requirements: requirements.txt requirements.lock | $(BIN)/python
	@echo "Installing requirements.txt into $(VENV) (the first time some minutes: TensorFlow alone is 570 MB)"
	@$(call install,requirements)
	@touch $@

$(VENV)/.requirements-dev: requirements-dev.txt requirements-dev.lock $(VENV)/.requirements
	@echo "Installing requirements-dev.txt into $(VENV)"
	@$(call install,requirements-dev)
	@touch $@

# The versions of the lock, so that what is released today changes nothing; ranges if the list has changed
# since its lock was made. What pip says is kept in a file and shown when it fails.
install = if head -n 1 $(1).lock | grep -q "$$(sha256sum <$(1).txt | cut -d ' ' -f 1)"; then file=$(1).lock; \
  else file=$(1).txt; echo "$(1).txt has changed since $(1).lock was made: versions are not pinned" \
    "(.ci/lock makes it anew)" >&2; fi; \
  $(PIP) install -r $$file >$(VENV)/pip.log 2>&1 || \
  { cat $(VENV)/pip.log >&2; echo "pip could not install $$file; its output is above." >&2; exit 1; }

$(BIN)/python:
	@command -v "$(PYTHON)" >/dev/null || { echo "$(NOT_FOUND)" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "$$($(PYTHON) --version) will not do: Python 3.10 to 3.13 is needed (make PYTHON=python3.11)" >&2; exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "$(PYTHON) has no venv module: install it (Debian, Ubuntu: apt install python3-venv)" \
	    "or name another Python with  make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
