# Holdfast: `make serve` starts the broker, `make test` proves it. Both do all of their own set-up.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:
MAKEFLAGS += --no-builtin-rules --no-print-directory

# Debian puts the mosquitto broker where only root looks.
export PATH := $(PATH):/usr/sbin:/sbin

PYTHON ?= python3
LISTEN ?= 127.0.0.1:1883
DATA_DIR ?= ./data
FUZZ_INPUTS ?= 1000000
FUZZ_SEED ?= 1
MINUTES ?= 2
JOBS ?= auto
SEEDS ?= 1000
SEED ?=
ATTACKS ?=

VENV := .venv
STAMPS := $(VENV)/.stamps
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
PYTEST := $(VENV)/bin/python -m pytest -n $(JOBS) --dist loadfile

# Contents and not times decide, so that a checkout or a touched file builds nothing.
INPUTS := $(shell { echo pure=$(HOLDFAST_PURE); find src -type f -not -path '*/__pycache__/*' \
	-not -path '*.egg-info/*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum pyproject.toml setup.py; } \
	| sha256sum | cut -c 1-16)
BUILT := $(STAMPS)/built-$(INPUTS)

# What the installed package must be. tests/test_build.py holds it to that.
EXPECT := $(if $(filter 1,$(HOLDFAST_PURE)),pure,compiled)

# The tests of the compiled modules, for their second run by the interpreter.
PURE_TESTS := $(wildcard tests/test_build.py tests/test_errors.py tests/test_message.py \
	tests/protocol tests/broker tests/fuzz tests/sim tests/spec/test_mqtt*.py \
	tests/store/test_records.py tests/client/test_spec_*.py tests/client/test_identifiers.py \
	tests/client/test_changes.py tests/client/test_foreign_session.py \
	tests/client/test_incoming.py tests/client/test_outgoing.py tests/client/sim)

.PHONY: help setup serve test lint types test-installed test-interpreted conformance bench \
	fuzz sim crash hostile clean

help:
	@echo 'make serve         build and start the broker on $(LISTEN), with its data in $(DATA_DIR)'
	@echo 'make test          check style and types, then run every test, compiled and interpreted;'
	@echo '                   its parts: lint, types, test-installed, test-interpreted'
	@echo 'make setup         leave a ready .venv/bin/holdfast'
	@echo 'make conformance   prove the standards, statement by statement, into docs/reference'
	@echo 'make bench         measure Holdfast beside Mosquitto, and its client beside others'
	@echo 'make fuzz          try $(FUZZ_INPUTS) inputs on the protocol and the broker, with seed $(FUZZ_SEED)'
	@echo 'make sim           live $(SEEDS) simulated lives of the broker and of the client, or SEED=7 of'
	@echo '                   the broker alone with its trace'
	@echo 'make crash         kill, stop and starve a real broker under load for $(MINUTES) minutes, and'
	@echo '                   real clients, against Holdfast and Mosquitto, for as long again'
	@echo 'make hostile       attack a real broker in every way, and measure its honest clients'
	@echo 'make clean         remove all that was built (not $(DATA_DIR))'
	@echo 'Variables: LISTEN, DATA_DIR, FUZZ_INPUTS, FUZZ_SEED, SEEDS, SEED, MINUTES, ATTACKS (names'
	@echo '           for make hostile), BENCH (options of make bench), PYTHON, HOLDFAST_PURE=1'
	@echo '           (build without compiling), JOBS (processes that test; 0 tests one by one)'

setup: $(BUILT)
	@echo "ready: $(VENV)/bin/holdfast, $$($(VENV)/bin/holdfast --version)"

serve: $(BUILT)
	@host='$(LISTEN)'; port="$${host##*:}"; host="$${host%:*}"; host="$${host#[}"; host="$${host%]}"; \
	printf '\n%s\n    %s\n%s\n    %s\n%s\n\n' \
	  'Next, in a second terminal, a subscriber whose session is kept while it is away:' \
	  "$(VENV)/bin/holdfast sub -h $$host -p $$port -i desk --no-clean -v -t 'home/#'" \
	  'and in a third, a message for it:' \
	  "$(VENV)/bin/holdfast pub -h $$host -p $$port -t home/door -m open" \
	  'Stop the subscriber, publish, start it again: nothing is lost. Ctrl-C here stops the broker.'
	@exec $(VENV)/bin/holdfast serve --listen '$(LISTEN)' --data-dir '$(DATA_DIR)'

test: lint types test-installed test-interpreted

lint: $(STAMPS)/test-tools
	@echo '== ruff'
	@$(VENV)/bin/ruff check --quiet
	@$(VENV)/bin/ruff format --check --quiet || \
	  { echo 'to format: $(VENV)/bin/ruff format'; $(VENV)/bin/ruff format --check; }

types: $(BUILT) $(STAMPS)/test-tools
	@echo '== mypy --strict'
	@$(VENV)/bin/mypy --strict src tests bench tools

test-installed: $(BUILT) $(STAMPS)/test-tools real-clients
	@echo '== every test, $(EXPECT)'
	@HOLDFAST_EXPECT=$(EXPECT) $(PYTEST)

test-interpreted: $(BUILT) $(STAMPS)/test-tools
	@echo '== the tests of the pure packages, interpreted'
	@PYTHONPATH=src HOLDFAST_EXPECT=pure $(PYTEST) $(PURE_TESTS)

# Real brokers and clients from elsewhere: Debian's mosquitto, MQTT.js from npm, a browser for its page.
.PHONY: real-clients
real-clients: tests/node/node_modules/.stamp
	@tools/debian-packages mosquitto:mosquitto mosquitto-clients:mosquitto_sub curl:curl
	@command -v chromium-headless-shell chromium chromium-browser google-chrome >/dev/null || \
	  tools/debian-packages chromium-headless-shell

tests/node/node_modules/.stamp: tests/node/package-lock.json
	@tools/debian-packages nodejs:node npm:npm
	@cd tests/node && npm ci --ignore-scripts --omit=dev --loglevel=error >/dev/null
	@touch $@

conformance: $(BUILT) $(STAMPS)/test-tools real-clients
	@$(VENV)/bin/python -m tools.conformance

bench: $(BUILT) $(STAMPS)/test-tools
	@tools/debian-packages mosquitto:mosquitto mosquitto-clients:mosquitto_sub
	@$(VENV)/bin/python -m bench $(BENCH)

fuzz: $(BUILT) $(STAMPS)/test-tools
	@$(MAKE) $(STAMPS)/fuzz-tools 2>/dev/null || \
	  echo 'the coverage-guided part needs atheris, which has no wheel here; the rest goes on'
	@$(VENV)/bin/python -m tests.fuzz run --inputs '$(FUZZ_INPUTS)' --seed '$(FUZZ_SEED)'

crash: $(BUILT) $(STAMPS)/test-tools
	@tools/debian-packages mosquitto:mosquitto
	@$(VENV)/bin/python -m tests.crash --minutes '$(MINUTES)'
	@$(VENV)/bin/python -m tests.client.crash --minutes '$(MINUTES)'

hostile: $(BUILT) $(STAMPS)/test-tools
	@$(VENV)/bin/python -m tests.hostile $(ATTACKS)

# Interpreted, because only then are the broker's inner bounds made tiny.
sim: $(BUILT) $(STAMPS)/test-tools
	@PYTHONPATH=src $(VENV)/bin/python -m tests.sim --seeds '$(SEEDS)' $(if $(SEED),--seed '$(SEED)')
	@$(if $(SEED),,PYTHONPATH=src $(VENV)/bin/python -m tests.client.sim --seeds '$(SEEDS)')

clean:
	rm -rf $(VENV) build dist src/*.egg-info tests/node/node_modules
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMPS)/created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Holdfast needs Python 3.11 or later: make PYTHON=/path/to/python3' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || tools/debian-packages python3-venv
	@$(PYTHON) -m venv --clear $(VENV)
	@mkdir -p $(STAMPS)
	@touch $@

# Without a compiler the headers serve nothing, and without headers the build says what it lacks.
$(STAMPS)/build-tools: pyproject.toml $(STAMPS)/created
	@[ '$(HOLDFAST_PURE)' = 1 ] || ! command -v cc gcc >/dev/null || \
	  $(VENV)/bin/python -c 'import os, sys, sysconfig as s; \
	    sys.exit(not os.path.exists(s.get_paths()["include"] + "/Python.h"))' || \
	  tools/debian-packages python3-dev || true
	@$(call install,["build-system"]["requires"])
	@touch $@

$(STAMPS)/test-tools: pyproject.toml $(STAMPS)/created
	@$(call install,["project"]["optional-dependencies"]["test"])
	@touch $@

$(STAMPS)/fuzz-tools: pyproject.toml $(STAMPS)/created
	@$(call install,["project"]["optional-dependencies"]["fuzz"]) --only-binary :all: 2>/dev/null
	@touch $@

# A wheel, and not an editable install: `src` never holds compiled modules, so that
# PYTHONPATH=src is interpreted for certain.
$(BUILT): | $(STAMPS)/build-tools
	@echo 'building holdfast (compiling it takes a minute or two)'
	@rm -rf build/wheel build/lib* build/bdist* build/temp* src/*.egg-info
	@mkdir -p build
	@$(PIP) wheel -v --no-deps --no-build-isolation --wheel-dir build/wheel . >build/log 2>&1 || \
	  { tail -n 60 build/log; echo 'the build failed; all of its output: build/log'; exit 1; } >&2
	@sed -n 's/^ *\(holdfast: \)/\1/p' build/log
	@[ ! -e $(VENV)/bin/holdfast ] || $(PIP) uninstall -qq --yes holdfast
	@$(PIP) install -qq build/wheel/*.whl
	@rm -f $(STAMPS)/built-*
	@touch $@

# $(call install,PATH): pip installs the requirements that pyproject.toml lists at PATH.
install = $(VENV)/bin/python -c 'import tomllib; \
	print(*tomllib.load(open("pyproject.toml", "rb"))$(1), sep="\n")' >$(STAMPS)/requirements.txt; \
	$(PIP) install -qq -r $(STAMPS)/requirements.txt
