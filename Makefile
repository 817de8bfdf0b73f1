# Everything runs in .venv in this folder; the first target that needs it makes it and installs what
# constraints.txt pins. A repeated `make` installs again only when pyproject.toml or constraints.txt changed.
#
#   PYTHON=python3.12        which Python makes .venv (3.11 or newer)
#   PIP_ARGS="..."           further arguments of pip, such as an index or --find-links
#   TORCH=cuda               accept a torch that brings CUDA
#   PYTEST_ARGS="-k name"    further arguments of pytest
#   FUZZ=1                   how many times as many examples `make test-long` gives the fuzzing tests
#   EXTRAS="arrow,postgres"  what of pyproject.toml the hashes of `make lock` are for

PYTHON ?= python3
PIP_ARGS ?=
PYTEST_ARGS ?=
TORCH ?= cpu
FUZZ ?= 40
EXTRAS ?= arrow,http,k8s,postgres,s3,zstd

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help demo test test-readme test-ui test-infra test-long chromium postgresql lint lock lock-production audit clean

# Where the environment says that no bytecode is to be kept, every process would compile everything again.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# What is never imported need not be compiled, which takes as long as to download and unpack it.
INSTALL := $(PIP) install --no-compile $(PIP_ARGS) -c constraints.txt
INSTALLED := $(VENV)/.installed
INSTALLED_TEST := $(VENV)/.installed-test
INSTALLED_INFRA := $(VENV)/.installed-infra
# pip says much; one line a package shows that it goes on.
BRIEFLY := awk '/^Collecting / { sub(/[^A-Za-z0-9._-].*/, "", $$2); print "  " $$2; fflush() } /^Installing collected/ { print "  unpacking ..."; fflush() }'

APT = apt-get update -qq && apt-get install -qq -y --no-install-recommends $(1) > /dev/null

help:
	@echo 'make demo        install, then run the pipeline on the built-in corpus'
	@echo 'make test        install, then lint and run the tests (three processes, of which some wait)'
	@echo 'make test-readme the commands and the code of README.md'
	@echo 'make test-ui     the Dagster UI in a browser, and the real daemon (installs Chromium on Debian and Ubuntu)'
	@echo 'make test-infra  what infra/ says, run without containers (installs PostgreSQL on Debian and Ubuntu)'
	@echo 'make test-long   the tests that take minutes'
	@echo 'make lint        ruff check and format'
	@echo 'make lock        resolve the dependencies again and write constraints.txt, and infra/*.txt with hashes'
	@echo 'make audit       ask which of these versions have known vulnerabilities'
	@echo 'make clean       remove .venv and caches'

demo: $(INSTALLED)
	$(BIN)/tsds demo

test: lint
	$(BIN)/python -m pytest -n 3 --dist worksteal -m "not long and not readme and not ui and not infra" $(PYTEST_ARGS)

test-readme: $(INSTALLED_TEST)
	$(BIN)/python -m pytest tests/test_readme.py $(PYTEST_ARGS)

test-ui: $(INSTALLED_TEST) chromium
	$(BIN)/python -m pytest tests/ui -m "not long" $(PYTEST_ARGS)

test-infra: $(INSTALLED_INFRA) postgresql
	$(BIN)/python -m pytest tests/infra -m infra $(PYTEST_ARGS)

test-long: $(INSTALLED_TEST)
	TSDS_FUZZ=$(FUZZ) $(BIN)/python -m pytest tests/fuzz $(PYTEST_ARGS)
	$(BIN)/python -m pytest -m long --ignore tests/fuzz $(PYTEST_ARGS)

chromium:
	@command -v chromium chromium-browser google-chrome > /dev/null || { \
	  [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null && echo 'Installing Chromium' \
	  && $(call APT,chromium); } || { \
	  echo 'Chromium is needed (on Debian and Ubuntu: apt install chromium)' >&2; exit 1; }

postgresql:
	@command -v initdb > /dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' > /dev/null || { \
	  [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null && echo 'Installing PostgreSQL' \
	  && $(call APT,postgresql); } || { \
	  echo 'PostgreSQL is needed (on Debian and Ubuntu: apt install postgresql)' >&2; exit 1; }

lint: $(INSTALLED_TEST)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is no Python 3.11 or newer: name one, as in: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "$(PYTHON) cannot make virtual environments (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }

# Alone and first: the one package that could be several GB by accident.
$(VENV)/.torch: constraints.txt | $(BIN)/pip
	@if [ '$(TORCH)' != cuda ]; then \
	  $(PIP) install -q --dry-run --report $(VENV)/torch.json $(PIP_ARGS) -c constraints.txt torch; \
	  if grep -Eq '"name": "(nvidia|cuda|triton)' $(VENV)/torch.json; then \
	    echo 'Nothing was installed: the torch that pip finds for this machine brings CUDA (several GB).' >&2; \
	    echo 'For the CPU build, name where it is; the installation page of PyTorch has the address:' >&2; \
	    echo '    make $(or $(MAKECMDGOALS),demo) PIP_ARGS="--extra-index-url ADDRESS"' >&2; \
	    echo 'For the CUDA build:' >&2; \
	    echo '    make $(or $(MAKECMDGOALS),demo) TORCH=cuda' >&2; \
	    exit 1; \
	  fi; \
	fi
	@echo 'Installing torch'
	@$(INSTALL) torch | $(BRIEFLY)
	@touch $@

# Each is a whole: what has the packages of the tests has those of the pipeline.
NEEDED := pyproject.toml constraints.txt $(VENV)/.torch

$(INSTALLED): $(NEEDED)
	@echo 'Installing tsds-pipeline and what it needs: about 90 packages, a few minutes the first time'
	@$(INSTALL) -e . | $(BRIEFLY)
	@touch $@

$(INSTALLED_TEST): $(NEEDED)
	@echo 'Installing tsds-pipeline, and what it and the tests need: a few minutes the first time'
	@$(INSTALL) -e '.[test]' | $(BRIEFLY)
	@touch $(INSTALLED) $@

$(INSTALLED_INFRA): $(NEEDED)
	@echo 'Installing tsds-pipeline, and what it, the tests and those of infra/ need: a few minutes the first time'
	@$(INSTALL) -e '.[test-infra]' | $(BRIEFLY)
	@touch $(INSTALLED) $(INSTALLED_TEST) $@

# Everything that pyproject.toml allows, as new as it gets; torch stays what it is (edit its line by hand).
lock: $(BIN)/pip
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	grep '^torch==' constraints.txt > build/lock/torch.txt
	build/lock/bin/pip install $(PIP_ARGS) -c build/lock/torch.txt -e '.[test-infra]' | $(BRIEFLY)
	{ grep '^#' constraints.txt; build/lock/bin/pip freeze --exclude-editable | sed 's/+.*//'; } > build/lock/constraints.txt
	mv build/lock/constraints.txt constraints.txt
	$(MAKE) lock-production
	rm -rf build/lock

# The same versions with hashes, of what a production image holds: infra/Dockerfile and `make audit`.
lock-production:
	$(PYTHON) -m venv build/lock
	build/lock/bin/pip install -q uv
	build/lock/bin/pip install -q --dry-run --ignore-installed --report build/lock/report.json $(PIP_ARGS) \
	  -c constraints.txt '.[$(EXTRAS)]'
	build/lock/bin/python infra/lock.py build/lock/report.json build/lock
	for part in torch requirements; do \
	  build/lock/bin/uv pip compile -q --no-deps --generate-hashes --no-header --no-annotate \
	    -o build/lock/$$part.txt build/lock/$$part.in; \
	  { echo '# Written by `make lock`: pip install --require-hashes -r ...'; cat build/lock/$$part.txt; } > infra/$$part.txt; \
	done
	grep -qFf build/lock/torch.hash infra/torch.txt || sed -i '/^torch==/r build/lock/torch.hash' infra/torch.txt

# What is known of vulnerabilities in exactly these versions; asks the PyPI advisory database, so it needs the network.
audit: $(BIN)/pip
	$(PYTHON) -m venv build/audit
	build/audit/bin/pip install -q pip-audit
	cat infra/requirements.txt infra/torch.txt > build/audit/requirements.txt
	build/audit/bin/pip-audit --strict --require-hashes --disable-pip -r build/audit/requirements.txt
	rm -rf build/audit

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find tsds_pipeline tests -name __pycache__ -type d -prune -exec rm -rf {} +
