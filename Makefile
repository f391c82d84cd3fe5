# Everything a person or CI runs. Nothing has to be installed by hand but Python 3.11 or newer and
# make. With Node, the checks and tests that need it run too; with Rust, the ratchet's primitives are
# compiled.
#
#   make demo    a conversation over real processes        make check   lints, types, contracts, drift
#   make test    all tests                                 make gen     code from proto/
#   make run     the daemon, in ./letterlock-data          make bench   speed, beside the official client
#   make soak    1,000 fault rounds, with a report         make bench-report   all workloads, drawn
#   make clean   removes what was installed and built      make bench-check    budgets that stay

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The first that runs and is new enough: a name alone may be a shim of a version manager.
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3.14 python3; do \
	"$$name" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		&& echo "$$name" && break; done)
NPM := $(shell command -v npm)
CARGO := $(shell command -v cargo)
BIN := .venv/bin
STAMPS := .make
TYPESCRIPT := clients/typescript
NATIVE := daemon/tripleratchet-native
INSTALLED := $(STAMPS)/python $(STAMPS)/native
NODE_STAMPS := $(if $(NPM),$(STAMPS)/node-interop $(STAMPS)/node-proto $(STAMPS)/node-typescript)

.PHONY: help demo test check gen bench bench-report bench-check soak run clean toolchains
.NOTPARALLEL:

help:
	@sed -n '5,9s/^# *//p' Makefile

demo: $(INSTALLED) $(NODE_STAMPS)
	$(BIN)/python -m tests.demo

test: $(INSTALLED) $(NODE_STAMPS) toolchains
	$(if $(NPM),npm test --silent --prefix $(TYPESCRIPT),@echo "no npm: the TypeScript client's tests are skipped")
	$(BIN)/pytest

check: $(INSTALLED) $(NODE_STAMPS) toolchains
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(if $(NPM),proto/lint/node_modules/.bin/buf lint proto,@echo "no npm: buf lint is skipped")
	$(BIN)/python proto/generate.py --check
	$(if $(NPM),npm run check --silent --prefix $(TYPESCRIPT),@echo "no npm: the TypeScript client's checks are skipped")

gen: $(INSTALLED) $(NODE_STAMPS)
	$(BIN)/python proto/generate.py

bench: $(INSTALLED) $(NODE_STAMPS)
	$(BIN)/python -m bench

bench-report: $(INSTALLED) $(NODE_STAMPS)
	$(BIN)/python -m bench report

bench-check: $(INSTALLED) $(NODE_STAMPS)
	$(BIN)/python -m bench check

# ROUNDS and SEED can be given: `make soak SEED=4711 ROUNDS=1` plays one round again.
ROUNDS ?= 1000
SEED ?= 0
soak: $(INSTALLED)
	$(BIN)/python -m tests.faults.soak --seed $(SEED) --rounds $(ROUNDS) --report soak-report.md

run: $(INSTALLED)
	$(BIN)/letterlockd serve

clean:
	rm -rf .venv $(STAMPS) tests/interop/node/node_modules proto/lint/node_modules
	rm -rf $(TYPESCRIPT)/node_modules $(TYPESCRIPT)/dist $(NATIVE)/target
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build

# CI sets LETTERLOCK_REQUIRE_TOOLCHAINS=1: there a missing toolchain is a failure, not a skip.
toolchains:
	@if [[ "$${LETTERLOCK_REQUIRE_TOOLCHAINS:-}" == 1 && -z "$(NPM)" ]]; then \
		echo "Node with npm is required here, and is missing" >&2; exit 1; fi
	@if [[ "$${LETTERLOCK_REQUIRE_TOOLCHAINS:-}" == 1 && -z "$(CARGO)" ]]; then \
		echo "Rust with cargo is required here, and is missing" >&2; exit 1; fi

$(STAMPS)/python: pyproject.toml
	@test -n "$(PYTHON)" || \
		{ echo "Python 3.11 or newer with venv is needed (make PYTHON=...)" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable '.[daemon]' --group dev --group bench
	@mkdir -p $(@D) && touch $@

# Where Rust is missing or too old the ratchet runs its portable primitives, a line says so, and the
# next make tries again.
$(STAMPS)/native: $(STAMPS)/python $(wildcard $(NATIVE)/src/*.rs $(NATIVE)/*.toml $(NATIVE)/Cargo.lock)
	@if [[ -z "$(CARGO)" ]]; then \
		echo "no Rust: the ratchet's primitives are not compiled, it runs the portable ones"; \
	elif echo "compiling the ratchet's primitives with Rust, about a minute" && \
			$(BIN)/python -m pip install --force-reinstall ./$(NATIVE) >$@.log 2>&1; then \
		touch $@; \
	else \
		echo "they could not be compiled (Rust 1.85 is needed; $@.log); the portable ones are run" >&2; \
		[[ "$${LETTERLOCK_REQUIRE_TOOLCHAINS:-}" != 1 ]]; \
	fi

$(STAMPS)/node-interop: tests/interop/node/package-lock.json
	npm ci --no-audit --no-fund --loglevel=error --prefix tests/interop/node
	@mkdir -p $(@D) && touch $@

$(STAMPS)/node-proto: proto/lint/package-lock.json
	npm ci --no-audit --no-fund --loglevel=error --prefix proto/lint
	@mkdir -p $(@D) && touch $@

$(STAMPS)/node-typescript: $(TYPESCRIPT)/package-lock.json
	npm ci --no-audit --no-fund --loglevel=error --prefix $(TYPESCRIPT)
	@mkdir -p $(@D) && touch $@
