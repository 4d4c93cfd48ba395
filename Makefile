# Two commands on a fresh machine: `make exp-resnet50` and `make test`. Both make the environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

# Tables and pictures that need no network: see experiments/README.md.
COSTS := exp-table2 exp-table4 exp-table9 exp-table10 exp-table12 exp-figure1 exp-figure7 exp-figure9 \
	exp-figure10 exp-copriv
NETWORKS := exp-minionn exp-resnet18 exp-resnet32 exp-seconds exp-batches exp-service
# Short trainings by the dozen (needs CIFAR in PQJAX_DATA); table 11 is made from the results there are.
TRAININGS := exp-table6 exp-table7 exp-table11
# Made from the results there are.
SUMMARIES := exp-overview

.PHONY: $(NETWORKS) $(TRAININGS) $(SUMMARIES) exp-hequant exp-pareto exp-history exp-resnet50 exp-mobilenetv2 exp-mobilenetv2-accuracy \
	exp-efficientnet exp-efficientnet-accuracy \
	exp-costs $(COSTS) bench test test-slow trace fuzz check format lint types train clean

exp-pareto: $(READY)
	$(BIN)/python -m experiments.figure8 $(ARGS)

# Whole networks predicted, some run between two parties; ARGS=--quick runs fewer of those.
exp-hequant: $(READY)
	$(BIN)/python -m experiments.hequant $(ARGS)

# Needs a git checkout with its history.
exp-history: $(READY)
	$(BIN)/python -m experiments.history $(ARGS)

$(NETWORKS) $(TRAININGS) $(SUMMARIES): exp-%: $(READY)
	$(BIN)/python -m experiments.$* $(ARGS)

# IMAGE=path asks about a picture of yours; QUICK=1 runs one block of each stage; LABELLED=n asks about n
# labelled photographs of PQJAX_DATA.
exp-resnet50: $(READY)
	IMAGE="$(IMAGE)" LABELLED="$(LABELLED)" QUICK="$(QUICK)" $(BIN)/python -m experiments.resnet50 $(ARGS)

# The same options; Google's weights if PQJAX_DATA is set.
exp-mobilenetv2: $(READY)
	IMAGE="$(IMAGE)" LABELLED="$(LABELLED)" QUICK="$(QUICK)" $(BIN)/python -m experiments.mobilenetv2 $(ARGS)

# Real ImageNet weights, from a package: answers by name from a bare clone.
exp-efficientnet: $(READY)
	IMAGE="$(IMAGE)" LABELLED="$(LABELLED)" QUICK="$(QUICK)" $(BIN)/python -m experiments.efficientnet $(ARGS)

exp-mobilenetv2-accuracy: $(READY)
	$(BIN)/python -m experiments.imagenet_accuracy --network mobilenetv2 $(ARGS)

exp-efficientnet-accuracy: $(READY)
	$(BIN)/python -m experiments.imagenet_accuracy --network efficientnet-lite0 $(ARGS)

$(COSTS): exp-%: $(READY)
	$(BIN)/python -m experiments.$* $(ARGS)

exp-costs: $(COSTS)

bench: $(READY)
	$(BIN)/python -m experiments.bench $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest -q -n auto --dist worksteal tests

test-slow: $(READY)
	$(BIN)/python -m pytest -q tests -m slow

# Records anew what every protocol sends under fixed seeds; say in the commit why it changed.
trace: $(READY)
	PYTHONPATH=.:tests $(BIN)/python -m wire_trace

# Coverage-guided, FUZZ_SECONDS for each target; ARGS names targets, or is --keep (tests/fuzz/fuzzing.py).
FUZZ_SECONDS ?= 60
fuzz: $(READY)
	$(BIN)/python -c "import atheris" 2>/dev/null || $(BIN)/pip install --quiet --editable ".[fuzz]"
	PYTHONPATH=.:tests:tests/fuzz $(BIN)/python -m fuzzing --seconds $(FUZZ_SECONDS) $(ARGS)

check: format lint types test

format: $(READY)
	$(BIN)/ruff format --check pqjax nets experiments tests

lint: $(READY)
	$(BIN)/ruff check pqjax nets experiments tests

types: $(READY)
	$(BIN)/pyright --pythonpath $(BIN)/python

# Trains all committed networks; resumes where it was interrupted. Needs CIFAR in PQJAX_DATA.
train: $(READY)
	$(BIN)/python -m experiments.train_nets --record --train runs

clean:
	rm -rf $(VENV) build *.egg-info

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@
