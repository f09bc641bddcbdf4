# `make` alone lists what there is to do.
#
# Variables:
#   PYTHON     the interpreter that the environment is made with   make demo PYTHON=python3.12
#   PIP_ARGS   further arguments for every pip install, such as where CPU-only wheels of torch are:
#                                          make demo PIP_ARGS="--extra-index-url ADDRESS"
#                                          make demo PIP_ARGS="--find-links FOLDER"
#   BENCH_ARGS arguments of the benchmark      make bench BENCH_ARGS="--only full,empty --pairs 3"

PYTHON   ?= python3
PIP_ARGS ?=
BENCH_ARGS ?=

VENV := .venv
BIN  := $(VENV)/bin
# The constraints go into every install, so that none of them can swap torch for another one.
PIP_INSTALL = $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt $(PIP_ARGS)

# Nothing that is started from here reports its use to anybody.
export RAY_USAGE_STATS_ENABLED := 0
# Where this is set, each of the many processes of a run, and of the tests, would compile every module anew.
unexport PYTHONDONTWRITEBYTECODE
# Plots are drawn to files; no screen is needed.
export MPLBACKEND := Agg

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test quick-tests test-all mutants lint types format docs docs-site bench dist pythons pip-audit clean distclean

help:  ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- environment --------------------------------------------------------------------------------------
# Two stamps: a demo needs only what a run needs; the tools for tests come on top when they are wanted.

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 15))' || { \
	  echo "fused_ray needs Python 3.10 to 3.14, and $(PYTHON) is another: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) --quiet --upgrade pip

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing fused_ray and what it needs into $(VENV) (1 to 6 GB, depending on the build of torch)"
	$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP_INSTALL) -e ".[dev]"
	@touch $@

# What only the slow tests of trackers need.
$(VENV)/.installed-trackers: $(VENV)/.installed-dev
	$(PIP_INSTALL) -e ".[trackers]"
	@touch $@

$(VENV)/.installed-release: $(VENV)/.installed-dev
	$(PIP_INSTALL) -e ".[release]"
	@touch $@

install: $(VENV)/.installed-dev  ## Make the environment in .venv, with the tools for tests

# --- use ----------------------------------------------------------------------------------------------

demo: $(VENV)/.installed  ## Forget a class, compare with retraining, bring it back (embedded data)
	$(BIN)/fused-ray run examples/demo.yaml --overwrite

# --- checks -------------------------------------------------------------------------------------------

# On its own network Ray needs no token, and a test must not write one into the home folder.
quick-tests test-all: export RAY_AUTH_MODE := disabled

test: lint  ## Lint, types and the tests (what CI runs; at most 12 minutes on 2 cores)
	@$(MAKE) --no-print-directory --jobs=2 types quick-tests

quick-tests: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-all: test $(VENV)/.installed-trackers  ## The same, then the slow tests one by one, full Fashion-MNIST among them (up to an hour more)
	$(BIN)/python -m pytest -m slow --durations=0 --durations-min=30

mutants: $(VENV)/.installed-dev  ## See which small faults in core/ and audit/ no test notices (about an hour)
	$(BIN)/python benchmarks/mutants.py

lint: $(VENV)/.installed-dev  ## Check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev  ## Check types, strictly
	$(BIN)/mypy

format: $(VENV)/.installed-dev  ## Bring the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed  ## Write anew the pages that are made from the code
	rm -f docs/configuration.yaml
	$(BIN)/fused-ray init docs/configuration.yaml
	$(BIN)/python docs/schemas.py > docs/schemas.md
	$(BIN)/python docs/reference.py

# Material for MkDocs tells its own plans at each build; docs/decisions/0029-docs-site.md has read them.
docs-site: export NO_MKDOCS_2_WARNING := 1
docs-site: $(VENV)/.installed-dev  ## Build the docs as a site, build/site/index.html; a warning is an error
	$(BIN)/python -m mkdocs build

bench: $(VENV)/.installed-dev  ## Time rounds, starts and memory beside the peers (nearly two hours; see BENCH_ARGS)
	PIP_ARGS="$(PIP_ARGS)" $(BIN)/python benchmarks/bench.py $(BENCH_ARGS)

# --- release (docs/decisions/0028-releases.md) -----------------------------------------------------------

# Further tools run in environments of their own, in the versions of constraints.txt.
TOOL     = $(BIN)/uv tool run --quiet --constraints constraints.txt
RESOLVE  = $(BIN)/uv pip compile --quiet --no-header --only-binary :all: --extra sweep --extra s3 pyproject.toml

dist: $(VENV)/.installed-release  ## Build the sdist and the wheel into dist/, and look at what they hold
	$(TOOL) check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	rm -rf build dist *.egg-info
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m tests.release.contents dist

pythons: $(VENV)/.installed-release  ## See that each Python from 3.10 to 3.14 can have all that is needed
	@set -e; for python in 3.10 3.11 3.12 3.13 3.14; do \
	  $(RESOLVE) --python-version $$python >/dev/null; echo "Python $$python: resolved"; \
	  $(RESOLVE) --python-version $$python --constraints constraints.txt >/dev/null; echo "  with constraints.txt: resolved"; \
	done
	@$(RESOLVE) --python-version 3.10 --resolution lowest-direct >/dev/null; echo "lowest versions, Python 3.10: resolved"
	$(TOOL) vermin --target=3.10- --violations --no-tips --quiet fused_ray

pip-audit: $(VENV)/.installed-release  ## Ask the databases for known vulnerabilities of the versions in constraints.txt
	$(TOOL) pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

# --- tidy up ------------------------------------------------------------------------------------------

clean:  ## Remove build outputs and caches (keeps .venv and runs)
	rm -rf build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -path ./$(VENV) -prune -o -type d -name __pycache__ -exec rm -rf {} +

distclean: clean  ## Remove the environment as well
	rm -rf $(VENV)
