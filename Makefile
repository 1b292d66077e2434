# make demo    the pipeline on the example records, with the embedded model
# make test    lint, types, tests, and the built wheel in an empty environment
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint

$(BIN)/dream: pyproject.toml constraints/cpu.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints/cpu.txt -e '.[local,test]'
	touch $@

demo: $(BIN)/dream
	PATH="$(CURDIR)/$(BIN):$$PATH" bash examples/demo.sh

lint: $(BIN)/dream
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q
