# Two commands matter: `make demo` (the main job on data that needs no download) and `make check` (the one gate).
# Both make their own virtual environment, once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Of `make bench`: which parts (all, or such as features,probe), the data, and anything else that its command takes.
PARTS ?=
CIFAR10 ?= ../shared/data/cifar10.tar.xz
WEIGHTS ?= ../shared/weights
BENCH ?=

.PHONY: demo check format lint types layers test notebooks bench clean

demo: $(VENV)/ready
	$(BIN)/headstart compare digits

check: lint types layers test

lint: $(VENV)/ready-dev
	$(BIN)/ruff format --check src tests benchmarks .ci
	$(BIN)/ruff check src tests benchmarks .ci

format: $(VENV)/ready-dev
	$(BIN)/ruff format src tests benchmarks .ci
	$(BIN)/ruff check --fix src tests benchmarks .ci

types: $(VENV)/ready-dev
	$(BIN)/mypy

layers: $(VENV)/ready-dev
	$(BIN)/lint-imports

# `data` tests run by themselves where the development data is found, and skip where it is not. Every test computes on one thread, so
# that as many files run at once as there are cores.
test: $(VENV)/ready-dev
	$(BIN)/python -m pytest -m "not slow" --numprocesses auto --dist loadfile

# Both notebooks from their first cell to their last, on the digits: a few minutes.
notebooks: $(VENV)/ready-dev
	$(BIN)/python -m pytest -m slow tests/test_notebooks.py

# Against TensorFlow, plain PyTorch and scikit-learn: hours, alone on the machine (docs/benchmarks.md).
bench: $(VENV)/ready-bench
	$(BIN)/python -m benchmarks.speed.run --cifar10 $(CIFAR10) --weights $(WEIGHTS) $(if $(PARTS),--parts $(PARTS)) $(BENCH); \
	measured=$$?; $(BIN)/python -m benchmarks.speed.table && exit $$measured

# A stamp is made last, so an installation that was interrupted is taken up again.
$(VENV)/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "headstart needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Name another with: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/ready-dev: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,tensorboard]'
	touch $@

$(VENV)/ready-bench: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	touch $@

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache
