# Python 3.11 or later, make and a package registry are enough: every target sets up .venv first, once.
# Another index for torch:  make setup TORCH_CPU_INDEX=https://…   Only the package registry:  make setup TORCH_CPU_INDEX=

PYTHON ?= python3
WORKERS ?= 2
# Holds torch's small CPU build, for Linux without an NVIDIA GPU. It is asked first and used only if it answers.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
BIN := .venv/bin
READY := .venv/.ready
EXTRAS := .venv-extras
PARITY := .venv-parity
COMMA := ,

# $(call install,FOLDER OF PYTHON,EXTRAS[,CONSTRAINTS]): the package and the pinned dependencies of these extras.
define install
index=$$($(1)/python tools/torch_index.py "$(TORCH_CPU_INDEX)") && \
$(1)/python -m pip install --quiet --disable-pip-version-check $${index:+--extra-index-url "$$index"} \
  -c $(or $(3),constraints.txt) -e '.[$(2)]'
endef

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-heavy coverage test-data test-extras test-browser parity screenshots fuzz check course docs bench speedrun clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY)  ## .venv with the pinned dependencies; nothing to do when it is up to date

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "GlassGPT needs Python 3.11 or later, and '$(PYTHON)' is not: name one with make PYTHON=python3.12" >&2; exit 2; }
	@echo "setting up .venv: a minute or two, once" >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(call install,$(BIN),dev$(COMMA)hf$(COMMA)data$(COMMA)sentencepiece$(COMMA)serve)
	@touch $@

$(EXTRAS)/.ready: pyproject.toml constraints.txt
	@test -x $(EXTRAS)/bin/python || $(PYTHON) -m venv $(EXTRAS)
	@$(call install,$(EXTRAS)/bin,dev$(COMMA)hf$(COMMA)data$(COMMA)eval$(COMMA)track$(COMMA)serve$(COMMA)browser)
	@touch $@

$(PARITY)/.ready: pyproject.toml constraints-parity.txt
	@test -x $(PARITY)/bin/python || $(PYTHON) -m venv $(PARITY)
	@$(call install,$(PARITY)/bin,dev$(COMMA)hf$(COMMA)sentencepiece,constraints-parity.txt)
	@touch $@

demo: $(READY)  ## train a small GPT for two minutes, watch it learn to write; goes on where it was interrupted
	@$(BIN)/glassgpt train --minutes 2 --run demo --resume

test: $(READY)  ## the test suite, but for the longest tests and those of pages in a browser
	@$(BIN)/python -m pytest -n $(WORKERS) -m "not heavy and not browser"

test-heavy: $(READY)  ## the longest tests: many ranks, GPT-2 124M
	@$(BIN)/python -m pytest -n $(WORKERS) -m heavy

coverage: $(READY)  ## all tests, with line coverage
	@$(BIN)/python -m pytest -n $(WORKERS) --cov --cov-report=term

test-data: $(READY)  ## only the tests that read GLASSGPT_TEST_DATA
	@$(BIN)/python -m pytest -n $(WORKERS) -m data

test-extras: $(EXTRAS)/.ready  ## only the tests of lm-eval and the trackers, in .venv-extras
	@$(EXTRAS)/bin/python -m pytest -n $(WORKERS) -m extras

test-browser: $(EXTRAS)/.ready  ## only the tests of pages in Chromium or Chrome, in .venv-extras
	@$(EXTRAS)/bin/python -m pytest -n $(WORKERS) -m browser --timeout 300 --timeout-method thread

parity: $(PARITY)/.ready  ## the tests beside transformers once more, with its version 4.56, in .venv-parity
	@$(PARITY)/bin/python -m pytest -n $(WORKERS) -m "not heavy" tests/interop

screenshots: $(EXTRAS)/.ready  ## the picture in the README, from a run of char-tiny
	@$(EXTRAS)/bin/python tools/screenshots.py char-tiny docs/look.png --height 1200 \
	  --query "text=First%20Citizen%3A%0ABefore%20we%20proceed&head=1.3"

fuzz: $(READY)  ## random damage to files and random options, for about an hour; FUZZ_CASES=N, FUZZ_FIRST=N
	@FUZZ_CASES=$${FUZZ_CASES:-5000} $(BIN)/python -m pytest -n 0 tests/fuzz

check: $(READY)  ## style, types, layers, the table of settings, and every command of the README and the course, small
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/config_reference.py --check
	$(BIN)/python tools/run_readme.py README.md
	$(BIN)/python tools/course.py --run small --jobs $(WORKERS)

course: $(READY)  ## every command of the course at full size, and every figure that its pages quote
	@$(BIN)/python tools/course.py --run full

.venv/.ready-docs: $(READY)
	@$(call install,$(BIN),docs)
	@touch $@

docs: .venv/.ready-docs  ## the site of the documents and the course, in site/; it opens without a server or a network
	@$(BIN)/python tools/site/build.py

bench: $(READY)  ## every figure of docs/benchmarks.md, in less than 30 minutes; NANOGPT=../nanoGPT takes part
	@$(BIN)/python bench/benchmarks.py $(if $(NANOGPT),--nanogpt $(NANOGPT))

speedrun: $(READY)  ## the best model that minutes can buy, beside the classic recipe: 15 minutes; docs/speedrun.md
	@$(BIN)/glassgpt bench speedrun

clean:  ## remove .venv and caches; runs/ stays
	rm -rf .venv .venv-extras .venv-parity .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage dist site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
