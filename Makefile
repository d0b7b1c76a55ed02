# The one door, for people and for CI: make setup | lint | type | test | hostile | docs | bench | demo | app | clean
# make demo IMAGES=some/folder labels your own pictures (one sub-folder a group).

PYTHON ?= python3
VENV ?= .venv
IMAGES ?=
OUT ?= demo/result
SEED ?= 0
HOST ?= 127.0.0.1
PORT ?=
PYTEST_FLAGS ?= -n 2 --dist loadgroup
WEIGHTS ?=
BENCH_FLAGS ?=

BIN := $(VENV)/bin
# --no-compile: Python compiles what it imports anyway; compiling everything takes a minute here.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check
# One thread per process: small kernels on two cores lose more to thread switches than they gain.
ONE_THREAD := OMP_NUM_THREADS=1
# Nothing was compiled when it was installed: without this each of several hundred processes would compile torch anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup lint type test hostile docs bench bench-gpu check-images demo app clean
.DELETE_ON_ERROR:

help:
	@echo "make demo              install, label real photographs, score them, make a FiftyOne data set (a few minutes)"
	@echo "make demo IMAGES=DIR   the same on your own folder: one sub-folder a group"
	@echo "make app               open the FiftyOne App on it; HOST=0.0.0.0 PORT=5151 to be seen from elsewhere"
	@echo "make test              install with the test tools, run the whole suite"
	@echo "make hostile           bad input, kills and signals: what docs/reliability.md promises, seen again"
	@echo "make setup             everything for development"
	@echo "make bench IMAGES=DIR   the table of docs/performance.md, on photographs, one sub-folder a group; WEIGHTS=FILE adds"
	@echo "                        the rows with a ViT-S/14, BENCH_FLAGS=--quick takes minutes instead of an hour"
	@echo "make bench-gpu IMAGES=DIR   the same for one NVIDIA GPU, in minutes; a table, and gpu.json"
	@echo "make lint type docs clean"

# A virtual environment, after a look at what pip's own message would not explain.
$(VENV)/.venv-made:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "error: no $(PYTHON) on PATH. Install Python 3.11 or 3.12, or name one: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $$($(PYTHON) --version 2>&1) is too old; umscosod needs Python >= 3.11. Name a newer one: make PYTHON=python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: $(PYTHON) cannot make virtual environments. On Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@command -v "$${CXX:-c++}" >/dev/null || command -v g++ >/dev/null || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 13))' || { \
	  echo "error: no C++ compiler; DenseCRF (pydensecrf2) is built from source. Debian or Ubuntu: apt-get install g++; macOS: xcode-select --install" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# One stamp per set of extras, so that nothing is installed twice while pyproject.toml stands.
$(VENV)/.stamp-run: pyproject.toml $(VENV)/.venv-made
	@echo "installing umscosod (torch is large: this takes minutes the first time)"
	$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/.stamp-demo: pyproject.toml $(VENV)/.venv-made
	@echo "installing umscosod with FiftyOne (torch is large: this takes minutes the first time)"
	$(PIP_INSTALL) -e ".[mongod]"
	@touch $@

$(VENV)/.stamp-test: pyproject.toml $(VENV)/.venv-made
	@echo "installing umscosod with its test tools (torch is large: this takes minutes the first time)"
	$(PIP_INSTALL) -e ".[test,mongod]"
	@touch $@

$(VENV)/.stamp-lint: $(VENV)/.stamp-test
	$(PIP_INSTALL) -e ".[lint]"
	@touch $@

$(VENV)/.stamp-docs: $(VENV)/.stamp-test
	$(PIP_INSTALL) -e ".[docs]"
	@touch $@

setup: $(VENV)/.stamp-test $(VENV)/.stamp-lint $(VENV)/.stamp-docs
	@echo "ready: source $(BIN)/activate"

lint: $(VENV)/.stamp-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive umscosod plugin zoo
	$(BIN)/lint-imports --no-cache

type: $(VENV)/.stamp-lint
	$(BIN)/mypy

test: $(VENV)/.stamp-test
	$(ONE_THREAD) $(BIN)/python -m pytest $(PYTEST_FLAGS)

hostile: $(VENV)/.stamp-test
	$(ONE_THREAD) $(BIN)/python -m tests.hostile

docs: $(VENV)/.stamp-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet --site-dir site
	@echo "docs: site/index.html"

bench: check-images $(VENV)/.stamp-test
	@test -n "$(strip $(IMAGES))" || { echo "error: some benchmarks need photographs: make bench IMAGES=DIR, one sub-folder a group" >&2; exit 1; }
	$(BIN)/python -m benchmarks "$(IMAGES)" $(if $(strip $(WEIGHTS)),--weights "$(WEIGHTS)") $(BENCH_FLAGS)

bench-gpu: check-images $(VENV)/.stamp-test
	@test -n "$(strip $(IMAGES))" || { echo "error: make bench-gpu IMAGES=DIR, photographs, one sub-folder a group" >&2; exit 1; }
	$(BIN)/python -m benchmarks.gpu "$(IMAGES)" --out gpu.json

check-images: # before the long installation
	@test -z "$(strip $(IMAGES))" || test -d "$(IMAGES)" || { echo "error: IMAGES=$(IMAGES) is not a folder" >&2; exit 1; }

# Results that are there stay if pictures and settings are the same; else (2) they are made anew. A bad picture (1) ends
# nothing.
define LABEL_DEMO
@echo "labelling into $(OUT)"; $(LABEL); code=$$?; \
if [ $$code -eq 2 ] && [ -e "$(OUT)/run" ]; then echo "labelling anew"; $(LABEL) --overwrite; code=$$?; fi; \
[ $$code -le 1 ]
endef
# FiftyOne with a folder of its own, database included: the user's is left alone.
DEMO_DATASET := $(BIN)/python -m umscosod.integrations.fiftyone.demo --home demo/fiftyone

# Without IMAGES: photographs with known masks are made first, and the result is scored against them.
# Where FiftyOne has no database, a line says so, and the masks are there all the same: no error.
ifeq ($(strip $(IMAGES)),)
demo: LABEL = $(BIN)/umscosod label demo/pictures/image --out "$(OUT)"
else
demo: LABEL = $(BIN)/umscosod label "$(IMAGES)" --out "$(OUT)"
endif
demo: check-images $(VENV)/.stamp-demo
ifeq ($(strip $(IMAGES)),)
	$(BIN)/python -m umscosod.demo demo/pictures --seed $(SEED)
	$(LABEL_DEMO)
	$(BIN)/umscosod evaluate "$(OUT)/masks" demo/pictures/gt
	$(DEMO_DATASET) demo/pictures --name umscosod-demo --results "$(OUT)" --if-possible
else
	$(LABEL_DEMO)
	$(DEMO_DATASET) "$(IMAGES)" --results "$(OUT)" --if-possible
endif
	@echo
	@echo "masks          $(OUT)/masks"
	@echo "soft maps      $(OUT)/maps"
	@echo "pseudo-labels  $(OUT)/pseudo"
	@echo "report         $(OUT)/report.json"
	@echo "contact sheet  $(OUT)/index.html   (open it in a browser)"
	@test ! -e demo/fiftyone/last.txt || echo "FiftyOne       make app"

app: $(VENV)/.stamp-demo
	@$(DEMO_DATASET) --open --host $(HOST) $(if $(PORT),--port $(PORT))

# Masks that a person accepted are nowhere else: they stay.
clean:
	rm -rf site build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache demo/pictures demo/result
	@if ls demo/fiftyone/data/umscosod/*/reviewed/* >/dev/null 2>&1; \
	then echo "kept demo/fiftyone, which holds masks that you accepted; to remove it: rm -rf demo/fiftyone"; \
	else rm -rf demo/fiftyone; fi
	find umscosod plugin tests -name __pycache__ -type d -prune -exec rm -rf {} +
