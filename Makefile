# Two commands on a fresh machine: `make exp-minionn` and `make test`. Both make the environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

# Tables and pictures that need no network: see experiments/README.md.
COSTS := exp-table2 exp-table4 exp-table9 exp-table12 exp-figure7 exp-copriv

.PHONY: exp-minionn exp-resnet50 exp-costs $(COSTS) bench test test-slow check format lint types train-minionn clean

exp-minionn: $(READY)
	$(BIN)/python -m experiments.minionn $(ARGS)

# The largest network that runs today.
exp-resnet50: exp-minionn

$(COSTS): exp-%: $(READY)
	$(BIN)/python -m experiments.$* $(ARGS)

exp-costs: $(COSTS)

bench: $(READY)
	$(BIN)/python -m experiments.bench $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest -q tests

test-slow: $(READY)
	$(BIN)/python -m pytest -q tests -m slow

check: format lint types test

format: $(READY)
	$(BIN)/ruff format --check pqjax nets experiments tests

lint: $(READY)
	$(BIN)/ruff check pqjax nets experiments tests

types: $(READY)
	$(BIN)/pyright --pythonpath $(BIN)/python

# Trains from nothing; resumes where it was interrupted. Needs CIFAR-10 in PQJAX_DATA.
train-minionn: $(READY)
	$(BIN)/python -m experiments.train_minionn --train runs

clean:
	rm -rf $(VENV) build *.egg-info

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@
