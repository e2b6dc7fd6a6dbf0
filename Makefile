# Everything a new computer needs is Python 3.11 or newer, pip and make.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin

# Tests of servers, archives and a browser. Two at a time: with three on two cores, overlays age before a page has drawn them.
WAITING := tests/display tests/openigtlink tests/recording tests/pacs tests/workspace
# Nothing runs beside a pipeline that has to keep up with its frames, or beside what measures a computer's load.
ALONE := tests/live tests/display/test_with_pipeline.py tests/display/test_pace.py tests/display/test_real_screens.py

PYTEST := $(RUN)/python -m pytest

.PHONY: setup kernels engines demo test test-computing test-waiting test-alone lint bench clean
# The parts of `test` follow one another, whatever -j says.
.NOTPARALLEL:

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fluoronav needs Python 3.11 or newer; name one with PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cpu,bench,igtl,display,pacs,planning,dev]'
	touch $@

# Engines that a user's computer need not have: types refer to them, and with them no test of the networks is skipped.
engines: $(VENV)/.engines-installed

$(VENV)/.engines-installed: $(VENV)/.installed
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --editable '.[openvino,rtx,graph]'
	touch $@

# What every start would else compile, on all cores; nothing where it is done.
kernels: setup
	$(RUN)/fluoronav kernels build

demo: kernels
	$(RUN)/fluoronav demo --seconds 20 --out out --no-display

test: test-computing test-waiting test-alone

test-computing: kernels
	$(PYTEST) -n 2 --dist loadfile tests $(addprefix --ignore=,$(WAITING) $(ALONE))

test-waiting: kernels
	$(PYTEST) -n 2 --dist loadfile $(WAITING) $(addprefix --ignore=,$(ALONE))

test-alone: kernels
	$(PYTEST) $(ALONE)

lint: engines
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/pyright
	$(RUN)/lint-imports --no-cache

bench: kernels
	$(RUN)/fluoronav bench latency --fps 30 --frames 3000 --json out/latency.json --png out/latency.png

clean:
	rm -rf $(VENV) out build dist .pytest_cache .ruff_cache .hypothesis
