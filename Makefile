# make demo [CHECKPOINT=path]   convert a checkpoint, load it, embed RNAs, compare with the authors
# make test                     the default tests
# make test-slow                the ones that take minutes
# make check                    ruff, mypy and the default tests
# make compat                   the core tests over versions of transformers and torch
# make bench                    the speed and memory tables of the README
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CHECKPOINT ?= tests/golden/tiny_fairseq_cfg.pt

.PHONY: demo test test-slow check compat bench clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

demo: $(VENV)/installed
	$(BIN)/python scripts/demo.py $(CHECKPOINT)

test: $(VENV)/installed
	$(BIN)/python -m pytest -q

test-slow: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[ray,bench]"
	$(BIN)/python -m pytest -q -m slow

check: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q

compat: $(VENV)/installed
	$(BIN)/python scripts/check_versions.py

bench: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[bench]"
	$(BIN)/python scripts/benchmark.py

clean:
	rm -rf $(VENV) .compat build dist *.egg-info
