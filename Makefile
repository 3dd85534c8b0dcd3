# Every target creates .venv from requirements.lock on first use, and again when the lock changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ARGS ?=

.PHONY: help run test test-unit fuzz check bench reference docs lock clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST)

run: $(READY) ## the whole pipeline, quick configuration; more options in ARGS="--set ..."
	$(BIN)/movie-ratings run --config configs/quickstart.toml $(ARGS)

# Tests start a hundred processes, which need not compile the same modules again.
test test-unit: export PYTHONDONTWRITEBYTECODE :=

# The longest files first. More processes than CPUs take longer: those on Ray use all they get.
test: $(READY) ## all tests; more options in ARGS="-k ..."
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-unit: $(READY) ## the tests that start neither Ray nor other programs
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not ray and not system" $(ARGS)

MINUTES ?= 60
fuzz: $(READY) ## rounds of random input, until MINUTES=60 are over
	end=$$(( $$(date +%s) + 60 * $(MINUTES) )); while [ $$(date +%s) -lt $$end ]; do \
	    FUZZ_PROFILE=fuzz $(BIN)/python -m pytest -q -x tests/fuzz $(ARGS) || exit 1; done

# Without ruff's cache, which keeps an order of imports found when another package was there.
check: $(READY) ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check --no-cache .
	$(BIN)/mypy

bench: $(READY) ## the benchmarks, as ratios
	$(BIN)/python benchmarks/bench_training.py $(ARGS)
	$(BIN)/python benchmarks/bench_ingest.py $(ARGS)
	$(BIN)/python benchmarks/bench_scale.py $(ARGS)
	$(BIN)/python benchmarks/bench_trials.py $(ARGS)
	$(BIN)/python benchmarks/bench_search.py
	$(BIN)/python benchmarks/bench_cluster.py
	$(BIN)/python benchmarks/bench_serve.py $(ARGS)

reference: $(READY) ## the reference of the Python API as pages, in build/reference
	$(BIN)/mkdocs build --quiet

docs: $(READY) ## write docs/configuration.md from the code
	$(BIN)/python -m dev.settings_reference --out docs/configuration.md

COMPILE := pip-compile --quiet --allow-unsafe --strip-extras --no-annotate --no-header --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-emit-options --no-emit-trusted-host \
    --constraint constraints.txt

lock: $(READY) ## resolve requirements*.lock again from pyproject.toml
	mkdir -p build
	$(BIN)/pip install --quiet pip-tools
	$(BIN)/$(COMPILE) --extra dev --output-file build/dev.lock pyproject.toml
	$(BIN)/python -m dev.locks build/dev.lock requirements.lock requirements-hashed.lock
	$(BIN)/$(COMPILE) --extra baselines --extra mlflow --extra serve --constraint requirements.lock \
	    --output-file build/runtime.lock pyproject.toml
	$(BIN)/python -m dev.locks build/runtime.lock requirements-runtime.lock \
	    requirements-runtime-hashed.lock
	$(BIN)/pip install --quiet --requirement requirements.lock
	$(BIN)/python -m dev.third_party deploy

clean: ## remove the environment and all outputs
	rm -rf $(VENV) artifacts

$(READY): requirements.lock requirements-hashed.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, found " + sys.version.split()[0] + ": make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes --no-deps --requirement requirements-hashed.lock
	$(BIN)/pip install --quiet --requirement requirements.lock  # PyTorch, in the build for this machine
	$(BIN)/pip install --quiet --no-deps --editable .
	@touch $@
