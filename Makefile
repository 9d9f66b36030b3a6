# make repro | test | test-faults | bench | serve | env | clean
SHELL := /bin/bash
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DO_NOT_TRACK ?= true
export PREFECT_SERVER_ANALYTICS_ENABLED ?= false
export DVC_NO_ANALYTICS ?= 1
RUN := .venv/bin/python

.PHONY: repro test test-faults bench serve env clean

repro: env
	@$(RUN) -m flows run

test: env
	@$(RUN) -m pytest -n 4 --dist loadfile --no-loadscope-reorder

# Kills each stage of a run four times; not part of `test`.
test-faults: env
	@$(RUN) -m pytest -s -m faults tests/faults

bench: env
	@set -e; for name in store gpu gaussian sampling solvers distances startup growth; do \
	  echo "== $$name"; $(RUN) "benchmarks/$$name.py"; done
	@$(RUN) benchmarks/memory.py --images 16 --count 16 --out benchmarks/results/shape.json
	@$(RUN) docs/performance.py

serve: env
	@$(RUN) -m flows serve

env: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	@set -e; if command -v uv >/dev/null; then \
	  [ -x $(RUN) ] || uv venv --quiet .venv; \
	  uv pip install --quiet --python $(RUN) -c constraints.txt -e ".[dev]"; \
	else \
	  [ -x $(RUN) ] || $(PYTHON) -m venv .venv; \
	  $(RUN) -m pip install --quiet -c constraints.txt -e ".[dev]"; \
	fi
	@touch $@

# The environment and caches only: data, the MLflow store and interrupted work stay.
clean:
	@rm -rf .venv .pytest_cache .hypothesis .ruff_cache .import_linter_cache build *.egg-info
	@find flows unseen_core tests benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
