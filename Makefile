# Two commands on a fresh machine: `make exp-resnet50` and `make test`. Both make the environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
TOOLS := .environments/tools

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
	exp-costs $(COSTS) bench docs test test-slow trace check format lint types train clean evidence dist test-versions audit soak fuzz

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

# The pages as a site, in build/docs: broken links fail. Needs no network.
docs: $(READY)
	PYTHONPATH=. NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict -f docs/site/mkdocs.yml

# Runs the tests that record evidence, and makes docs/evidence.md; ARGS="--only faults" runs some.
evidence: $(READY)
	$(BIN)/python -m experiments.evidence --record $(ARGS)

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
	$(BIN)/ruff format --check pqjax nets experiments tests docs

lint: $(READY)
	$(BIN)/ruff check pqjax nets experiments tests docs

types: $(READY)
	$(BIN)/pyright --pythonpath $(BIN)/python

# Trains all committed networks; resumes where it was interrupted. Needs CIFAR in PQJAX_DATA.
train: $(READY)
	$(BIN)/python -m experiments.train_nets --record --train runs

# Wheel and archive of sources, into DIST.
DIST ?= dist
dist: $(TOOLS)/ready
	$(TOOLS)/bin/python -m build --quiet --outdir $(DIST) .

# The lowest and the newest versions of all dependencies, each in an environment of its own, for PYTHON alone;
# ARGS=--all runs the whole fast suite in both.
test-versions: $(TOOLS)/ready
	PYTHONPATH=tests $(TOOLS)/bin/python tests/supply/versions.py lowest $(ARGS)
	PYTHONPATH=tests $(TOOLS)/bin/python tests/supply/versions.py newest $(ARGS)

# Known vulnerabilities of what is installed here; needs a service that knows them.
audit: $(READY) $(TOOLS)/ready
	$(TOOLS)/bin/python tests/supply/audit.py $(BIN)/python $(ARGS)

# Good clients, bad clients, junk, killed workers and models read anew, all at once, for SOAK_MINUTES.
SOAK_MINUTES ?= 30
soak: $(READY)
	SOAK_MINUTES=$(SOAK_MINUTES) $(BIN)/python -m pytest -q -s -m slow -k minutes tests/service/test_soak.py $(ARGS)

clean:
	rm -rf $(VENV) .environments dist build *.egg-info

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

$(TOOLS)/ready:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/pip install --quiet --upgrade pip build pip-audit uv
	touch $@
