# Every command of the study. `make eval` and `make test` need nothing but Python 3.11 or 3.12,
# make, and the network for the first set-up; afterwards everything runs offline.

# The interpreter that creates .venv; PYTHON from the caller or the environment comes first.
# A candidate must start (a version manager may leave a name that does not), be of a supported
# version and be able to create environments.
SUPPORTED = import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))
PYTHON ?= $(shell for candidate in python3.11 python3.12 python3 python; do \
	$$candidate -c '$(SUPPORTED)' >/dev/null 2>&1 && echo $$candidate && break; done)

VENV  := .venv
PY    := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.PHONY: help setup eval kodak test golden lint format figures report gallery fuzz bench study clean
.DEFAULT_GOAL := help

help:     ## list the targets
	@sed -n 's/^\([a-z]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

setup: $(STAMP)  ## create .venv and install requirements.txt (every target does it when needed)

# Installed again when requirements.txt changes. An environment whose creation was interrupted
# has no working pip and is made anew. --no-compile: Python compiles what it imports, which is a
# small part of what is installed, once; without bytecode each process would compile torch (10 s).
unexport PYTHONDONTWRITEBYTECODE
$(STAMP): requirements.txt
	@$(PY) -m pip --version >/dev/null 2>&1 || { \
	  $(if $(PYTHON),$(PYTHON),false) -c '$(SUPPORTED)' || { \
	    echo "Need Python 3.11 or 3.12 with its venv module (Debian, Ubuntu: python3-venv);" \
	         "name one with 'make PYTHON=/path/to/python'." >&2; exit 1; }; \
	  echo "Creating $(VENV) with $(PYTHON)"; $(PYTHON) -m venv --clear $(VENV); }
	$(PY) -m pip install --disable-pip-version-check --no-compile -r requirements.txt
	@touch $@

eval: $(STAMP)   ## show every trained model on four photographs (a minute); ALL=1: at all lambdas
	@$(PY) test.py --model_name all $(if $(ALL),,--lmbda 0.013)

KODAK_URL ?= http://r0k.us/graphics/kodak/kodak

kodak: data/kodak  ## download the 24 Kodak test images (15 MB) to data/kodak and check them
	cd $< && sha256sum --quiet --check $(CURDIR)/statistics/kodak.sha256

# The folder gets its name when it is complete.
data/kodak:
	mkdir -p $@.part
	cd $@.part && curl --fail --location --retry 3 --remote-name-all "$(KODAK_URL)/kodim[01-24].png"
	cd $@.part && sha256sum --quiet --check $(CURDIR)/statistics/kodak.sha256
	mv $@.part $@

test: $(STAMP) lint  ## run lint and all the tests
	$(PY) -m pytest -q -n 2 --dist worksteal

# In .venv itself: `make setup` after `rm .venv/.installed` brings the pinned version back.
golden: $(STAMP) ## decode and write the golden streams; TORCH=2.14.1: with that version of torch
	$(if $(TORCH),$(PY) -m pip install --disable-pip-version-check --quiet torch==$(TORCH))
	$(PY) -m pytest -q tests/codec/test_golden.py

lint: $(STAMP)   ## check style, likely mistakes, format, types and imports
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports --no-logo --no-cache

format: $(STAMP) ## rewrite the code in the common format
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

# Without timestamps, so that an unchanged notebook stays unchanged.
figures: $(STAMP) ## draw the curves, execute the notebooks
	$(PY) -m benchmarks.report.figures
	NOTEBOOK_FIGURES=Image4md $(PY) -m jupyter nbconvert --to notebook --execute --inplace \
	  --ExecutePreprocessor.record_timing=False notebooks/*.ipynb

report: $(STAMP) ## write the tables of README and report from the CSVs
	$(PY) -m benchmarks.report

gallery: $(STAMP) ## build the page that compares reconstructions
	$(PY) -m benchmarks gallery

fuzz: $(STAMP)   ## decode a hundred thousand damaged files (long)
	$(PY) -m tests.fuzz --cases 100000

bench: $(STAMP)  ## measure coding times beside CompressAI's (20 minutes; an otherwise idle machine)
	$(PY) -m benchmarks speed
	$(PY) -m benchmarks orders

# The script calls plain `python`.
study: export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
study: $(STAMP)  ## train all 16 checkpoints; resumes where it was stopped (days on a CPU)
	bash train_study.sh

# Keeps .venv, runs/ (training states) and everything that is committed.
clean:    ## remove caches and outputs/
	rm -rf outputs .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
