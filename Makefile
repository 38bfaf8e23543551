# Two commands matter: `make test` (everything that CI runs) and `make demo` (the main job on real input).
# Both need python3 and make, and set up `.venv` by themselves; nothing is done twice while pyproject.toml stands.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.PHONY: test lint types pytest demo bench format clean

test: lint types pytest

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/test.stamp
	$(BIN)/mypy

# Two at a time: tests spend half of their time in waiting for processes that they start and kill.
pytest: $(VENV)/test.stamp
	$(BIN)/python -m pytest -n 2 --dist worksteal

demo: $(VENV)/demo.stamp
	$(BIN)/epochal demo

bench: $(VENV)/test.stamp
	$(BIN)/python benchmarks/all.py

format: $(VENV)/test.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) demo-data benchmarks/data .mypy_cache .ruff_cache .pytest_cache .hypothesis

# The pip that a Python brings may be too old to know dependency groups, so it renews itself first.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade "pip>=25.1"

$(VENV)/demo.stamp: pyproject.toml | $(BIN)/python
	$(PIP) install --editable ".[hdf5,demo]"
	touch $@

# torch is a peer in benchmarks/peers.py and nothing else, so no extra of the package asks for it.
$(VENV)/test.stamp: pyproject.toml $(VENV)/demo.stamp
	$(PIP) install --editable ".[all]" --group dev
	$(PIP) install torch==2.13.0
	touch $@
