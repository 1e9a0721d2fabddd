# The one list of commands. `make demo` and `make test` set up all they need.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Without what was compiled before, every program that a test starts compiles all it imports.
unexport PYTHONDONTWRITEBYTECODE
PROTOC = $(BIN)/python -m grpc_tools.protoc -I. protocol/v1/*.proto
PROTOC_OUT = --python_out=$(1) --grpc_python_out=$(1) --mypy_out=quiet:$(1) --mypy_grpc_out=quiet:$(1)

.PHONY: setup demo test test-full lint format proto release-protocol package lock bench bench-backup bench-watch bench-dedup bench-memory \
    bench-collect bench-recover bench-tools

setup: $(READY)

$(READY): requirements/dev.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

demo: $(READY)
	$(BIN)/python -m demo.quarter_hour

test: $(READY)
	packaging/linux/test-tools.sh
	$(BIN)/pytest -n 2 --dist worksteal -m "not full"

test-full: $(READY)
	packaging/linux/test-tools.sh
	$(BIN)/pytest -n 2 --dist worksteal

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	for system in win32 darwin; do \
	    $(BIN)/mypy --platform $$system --cache-dir .mypy_cache/$$system --config-file mypy-elsewhere.ini; \
	done
	$(BIN)/lint-imports --no-cache
	$(BIN)/buf lint
	$(BIN)/buf breaking --against protocol/released.binpb
	made=$$(mktemp -d) && trap 'rm -r "$$made"' EXIT && $(PROTOC) $(call PROTOC_OUT,$$made) && \
	    diff -r --exclude='*.proto' --exclude=__init__.py --exclude=__pycache__ \
	        "$$made/protocol/v1" protocol/v1

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The generated code is committed; `make lint` fails when it is not current.
proto: $(READY)
	$(PROTOC) $(call PROTOC_OUT,.)

# What a peer of an older release may rely on: renewed when a release is made.
release-protocol: $(READY)
	$(BIN)/buf build --exclude-source-info --output protocol/released.binpb

# The table of backups takes 20 minutes, each of the others 10.
bench: bench-backup bench-watch bench-dedup bench-memory bench-collect bench-recover

bench-backup: bench-tools
	$(BIN)/python -m bench.backup

bench-watch: bench-tools
	$(BIN)/python -m bench.watch

bench-dedup: bench-tools
	$(BIN)/python -m bench.dedup

bench-memory: $(READY)
	$(BIN)/python -m bench.memory

bench-collect: bench-tools
	$(BIN)/python -m bench.collect

bench-recover: $(READY)
	$(BIN)/python -m bench.recover

bench-tools: $(READY)
	packaging/linux/bench-tools.sh

# The agent with all it needs, as a folder and as a Debian package, in dist/.
package: $(READY)
	$(BIN)/python packaging/build.py

lock: $(READY)
	set -e; for name in agent controller; do \
	    $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 \
	        --extra $$name pyproject.toml --output-file requirements/$$name.lock; done
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 \
	    --extra agent --extra controller --extra dev pyproject.toml --output-file requirements/dev.lock
