# `make demo` and `make test` need Python 3.11 with its venv module, git and make; nothing else.
# Everything is installed into .venv; repeated calls install nothing.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
RECORDINGS ?= ../shared/data/rat_neuropixels
RUNS ?= runs
BUNDLES := nuclr_stream/bundles

# The simulated networks that the demo bundle is trained on, that test it, and the one of the demo recording.
NETWORK_ANIMALS ?= 48
NETWORK_SEED ?= 1
TEST_ANIMALS ?= 24
TEST_SEED ?= 2
DEMO_SEED ?= 3

# What `make bench` measures. The p99 of so many steps is about their slowest but one.
BENCH_UNITS ?= 100 400 1000
BENCH_STEPS ?= 100

# One pytest process per core, up to TEST_PROCESSES; a file stays in one process, because its fixtures train and simulate.
# Each process has one thread. Branch coverage is measured, and must be reached, only by all tests together.
TEST_PROCESSES ?= 4
PYTEST := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest
PARALLEL := -n auto --maxprocesses $(TEST_PROCESSES) --dist loadfile
COVERAGE := --cov --cov-report=term --cov-fail-under=80

# A training that was interrupted goes on; a finished one is not repeated (make clean forgets it).
resume = $(if $(wildcard $(RUNS)/$(1)/checkpoint.pt),--resume)

.PHONY: help setup demo test test-slow faults faults-long lint results bench bench-page bundles bundle-demo demo-recording bundle-rat clean

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

$(VENV)/.core: pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python found: install Python 3.11 or later, or say make PYTHON=/path/to/python" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than 3.11: say make PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(PIP) install --quiet --editable '.[dashboard]' --constraint constraints.txt
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/.core
	$(PIP) install --quiet --editable '.[dev]' --constraint constraints.txt
	@touch $@

setup: $(VENV)/.dev ## Make .venv with everything for work on the project (torch is large)

demo: $(VENV)/.core ## Daemon, client and live page on the simulated demo recording; without torch; ARGS=--stay goes on
	$(BIN)/nuclr-stream demo $(ARGS)

test: $(VENV)/.dev ## Install what the tests need (with torch), check style and types, and run them with branch coverage
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST) $(PARALLEL) $(or $(ARGS),$(COVERAGE))

test-slow: $(VENV)/.dev ## Long campaigns that make test leaves out, and property tests on examples drawn anew
	$(PYTEST) $(PARALLEL) -m 'slow or hypothesis' --hypothesis-profile=search $(ARGS)

faults: $(VENV)/.dev ## Break the daemon in every way that it promises to survive (minutes): results/faults/, docs/reliability.md
	$(BIN)/nuclr-stream-faults --size ci $(ARGS)

faults-long: $(VENV)/.dev ## The same with 50 kills and a day of steps (hours)
	$(BIN)/nuclr-stream-faults --size long $(ARGS)

lint: $(VENV)/.dev ## Style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

results: $(VENV)/.dev ## Write docs/results*.md, docs/performance.md, their figures and the table of the README from results/
	$(BIN)/nuclr-train report-results
	$(if $(wildcard results/speed/*.json),$(BIN)/nuclr-train report-speed)

bench: $(VENV)/.dev ## Measure this machine while it is quiet (minutes): results/speed/ and docs/performance.md
	mkdir -p results/speed
	set -e; for units in $(BENCH_UNITS); do \
		$(BIN)/nuclr-stream bench --units $$units --steps $(BENCH_STEPS) --json > results/speed/stream_$$units.part; \
		mv results/speed/stream_$$units.part results/speed/stream_$$units.json; \
	done
	$(BIN)/nuclr-train bench configs/pretrain_demo.toml --out results/speed/training.json
	$(BIN)/nuclr-train report-speed

bench-page: $(VENV)/.dev ## Measure the live page in Chromium (a minute; apt-get install chromium): results/dashboard/, docs/dashboard.md
	$(BIN)/python -m tests.nuclr_stream.dashboard.bench
	$(BIN)/python -m tests.nuclr_stream.dashboard.figures

bundles: bundle-demo bundle-rat ## Rebuild both shipped bundles

bundle-demo: $(VENV)/.dev ## Simulate networks, pretrain, fit, test on fresh ones and export the shipped demo bundle (three hours)
	$(BIN)/nuclr-train simulate --kind network --out $(RUNS)/network_train --animals $(NETWORK_ANIMALS) --first-seed $(NETWORK_SEED) --duration-s 300
	$(BIN)/nuclr-train simulate --kind network --out $(RUNS)/network_test --animals $(TEST_ANIMALS) --first-seed $(TEST_SEED) --duration-s 300
	$(BIN)/nuclr-train pretrain configs/pretrain_demo.toml --recordings $(RUNS)/network_train --out $(RUNS)/network $(call resume,network)
	$(BIN)/nuclr-train readout $(RUNS)/network --recordings $(RUNS)/network_train
	$(BIN)/nuclr-train evaluate $(RUNS)/network --recordings $(RUNS)/network_train --test $(RUNS)/network_test --out results/network/nested.json
	$(BIN)/nuclr-export bundle $(RUNS)/network --out $(BUNDLES)/demo --name demo --evaluation results/network/nested.json

demo-recording: $(VENV)/.dev ## Simulate the animal of the shipped demo recording
	$(BIN)/nuclr-train simulate --kind network --out $(RUNS)/demo_recording --animals 1 --first-seed $(DEMO_SEED) --duration-s 300
	cp $(RUNS)/demo_recording/network_$(DEMO_SEED)_000.npz nuclr_stream/recordings/demo.npz

bundle-rat: $(VENV)/.dev ## Pretrain, score by rat left out, fit and export the shipped rat bundle from RECORDINGS= (two hours)
	$(BIN)/nuclr-train evaluate configs/pretrain_rat.toml --recordings $(RECORDINGS) --encoders configs/splits/rat_pairs.json \
		--runs $(RUNS)/rat_folds --out results/rat/nested.json
	$(BIN)/nuclr-train pretrain configs/pretrain_rat.toml --recordings $(RECORDINGS) --out $(RUNS)/rat $(call resume,rat)
	$(BIN)/nuclr-train readout $(RUNS)/rat --recordings $(RECORDINGS)
	$(BIN)/nuclr-export bundle $(RUNS)/rat --out $(BUNDLES)/rat --name rat --evaluation results/rat/nested.json

clean: ## Remove runs and caches; .venv stays
	rm -rf $(RUNS) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
