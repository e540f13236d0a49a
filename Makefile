# `make quickstart` needs nothing but Python 3.11 or newer: .venv is made on the way and renewed when the pins change.

PYTHON ?= python3
OMP_NUM_THREADS ?= 1
PINS := pyproject.toml constraints.txt
READY := .venv/.quickstart-ready
DEV_READY := .venv/.dev-ready
CHECK_PYTHON := import sys; sys.exit(sys.version_info < (3, 11) and "MINT needs Python 3.11 or newer: make PYTHON=...")
comma := ,

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help quickstart smoke test test-all lint docs bench clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s%s\n", $$1, $$2}' Makefile

quickstart: $(READY)  ## train both stages, evaluate, write runs/quickstart/report.html; options: ARGS='--source DIR'
	.venv/bin/mint quickstart $(ARGS)

smoke: $(DEV_READY)  ## the quickstart in a few steps with the genuine weights, and a check of what it wrote
	rm -rf runs/smoke
	.venv/bin/mint quickstart --smoke --output runs/smoke
	.venv/bin/python tests/smoke_check.py runs/smoke

test: $(DEV_READY)  ## the tests that need minutes at most and no weights
	OMP_NUM_THREADS=$(OMP_NUM_THREADS) .venv/bin/pytest -n 2 $(ARGS)

test-all: $(DEV_READY)  ## those with the genuine weights too
	OMP_NUM_THREADS=$(OMP_NUM_THREADS) .venv/bin/pytest -n 2 -m 'not gpu' $(ARGS)

lint: $(DEV_READY)  ## style, format and types
	.venv/bin/ruff check --no-cache .
	.venv/bin/ruff format --check .
	.venv/bin/mypy src tests $(wildcard benchmarks/*.py tools/*.py)

docs: $(DEV_READY)  ## the documentation site in site/, strict about links
	.venv/bin/mkdocs build --quiet

bench: $(READY)  ## measure speed and memory
	.venv/bin/python benchmarks/run.py $(ARGS)

clean:  ## remove .venv, caches and builds; runs/ and the downloaded weights stay
	rm -rf .venv site .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist src/*.egg-info
	find src tests benchmarks tools -name __pycache__ -type d -prune -exec rm -rf {} +

# $(call install,EXTRAS): what an interruption leaves half made is known by .unfinished and made anew.
define install
@if [ -e .venv/.unfinished ] || ! .venv/bin/python -c '' 2>/dev/null; then \
	$(PYTHON) -c '$(CHECK_PYTHON)' && echo "Making .venv with $(PYTHON)" && \
	rm -rf $(READY) $(DEV_READY) .venv/bin .venv && mkdir .venv && touch .venv/.unfinished && $(PYTHON) -m venv .venv; \
fi
@echo "Installing the packages of constraints.txt into .venv (the first time takes minutes)"
@trap 'exit 130' INT TERM; touch .venv/.unfinished; \
.venv/bin/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[$(1)]'; \
status=$$?; rm -f .venv/.unfinished; exit $$status
endef

$(READY): $(PINS)
	$(call install,quickstart)
	@touch $@

$(DEV_READY): $(PINS)
	$(call install,quickstart$(comma)metrics$(comma)docs$(comma)dev)
	@touch $@ $(READY)
