# Two commands for a newcomer: `make demo` and `make test`. Both make their own .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# The suite starts some hundred Pythons: without kept byte code each would compile the program anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test lint proof bench compare golden test-gpu clean
help:
	@echo "make demo      one real run from inventory to picture, into out/"
	@echo "make test      lint, types and the whole test suite"
	@echo "make lint      ruff and mypy only"
	@echo "make proof     the long checks: large sizes, processes killed at any moment"
	@echo "make bench     benchmarks (timings, not checks)"
	@echo "make compare   gpustat, nvitop and fleet inventory on one fake driver with faults"
	@echo "make golden    rewrite the expected outputs, then look at the diff"
	@echo "make test-gpu  the tests that need an NVIDIA device"
	@echo "make clean     remove .venv and out/"

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "fleetmap needs Python 3.11 or newer and %s is %s; try make PYTHON=python3.12" % (sys.executable, sys.version.split()[0]))'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(READY)

demo: $(READY)
	@$(BIN)/python samples/demo.py --output out

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/pytest -n auto --maxprocesses 8 --dist loadfile

proof: $(READY)
	$(BIN)/pytest -n auto --maxprocesses 8 -m proof tests

bench: $(READY)
	$(BIN)/pytest -m bench -s tests/bench

compare: $(READY)
	$(BIN)/python -m tests.bench.compare_tools $(VENV)

golden: $(READY)
	$(BIN)/pytest --update-golden tests

test-gpu: $(READY)
	$(BIN)/pytest -m gpu

clean:
	rm -rf $(VENV) out
