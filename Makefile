# make demo [CHECKPOINT=path]   what a model says about real RNAs, and that conversion is exact
# make test [PROCESSES=N]       the default tests
# make test-slow                the ones that take minutes
# make test-long [SEQUENCES=N]  a long run of embed: killed, shared, short of disk
# make space                    the web page, on this machine
# make space-folder             what a Space on the Hub consists of, into build/space
# make test-browser             the web page in a headless Chromium
# make types                    mypy, on a copy laid out as a wheel is
# make check                    ruff, mypy and the default tests
# make docs                     the pages and the docstrings as a site, into build/site
# make compat [SESSION=name]    the core tests over versions of transformers and torch
# make fuzz                     10,000 damaged files for each reader; the table of docs/robustness.md
# make portability              the same numbers with other threads and instructions, likewise
# make bench                    the speed and memory tables of the README
# make mini RFAM=table TS0=table   the model mini, as recipes/pretraining/README.md says; hours
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CHECKPOINT ?=
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
SEQUENCES ?= 100000
PROCESSES ?= 2
SESSION ?= core
RUNS ?= runs
# A file of tests is one process's. Threads that wait must not spin: there are more than cores.
TEST := OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -q -n $(PROCESSES) --dist loadfile

.PHONY: demo space space-folder test test-slow test-long test-browser types check docs compat fuzz portability bench mini clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --quiet -e ".[dev]"
	touch $@

# The demo needs less than the tests, and shows what pip does.
$(VENV)/installed-demo: pyproject.toml constraints.txt
	@echo "Installs torch, transformers, matplotlib and what they need into $(VENV), which is 700 MB."
	@echo "To download: about 80 MB, and torch, which is 190 MB without CUDA and gigabytes with it."
	@echo "PyPI has the latter for Linux; the former comes with"
	@echo "  export PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu"
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e ".[demo]"
	touch $@

demo: $(VENV)/installed-demo
	$(BIN)/python -m scripts.demo $(CHECKPOINT)

space: $(VENV)/installed
	$(BIN)/python space/app.py

space-folder:
	rm -rf build/space
	mkdir -p build/space
	cp -r space/. examples ernie_rna *_ernie_rna.py build/space
	find build/space -name __pycache__ -prune -exec rm -r {} +

test: $(VENV)/installed
	$(TEST)

test-slow: $(VENV)/installed
	$(PIP) --quiet -e ".[ray,bench]"
	$(BIN)/python -m pytest -q -m slow

test-long: $(VENV)/installed
	$(BIN)/python -m scripts.long_run --sequences $(SEQUENCES)

test-browser: $(VENV)/installed
	$(PIP) --quiet -e ".[browser]"
	command -v chromedriver || (apt-get update && apt-get install -y chromium chromium-driver)
	$(BIN)/python -m pytest -q -m browser tests/web

# mypy follows no `__path__`, and takes the root files, which import one another relatively, for
# modules of the top: it sees them where a wheel has them.
types: $(VENV)/installed
	rm -rf build/types
	mkdir -p build/types
	cp -r pyproject.toml noxfile.py ernie_rna recipes scripts build/types
	cp *_ernie_rna.py build/types/ernie_rna/model
	cd build/types && $(CURDIR)/$(BIN)/mypy --cache-dir $(CURDIR)/.mypy_cache

check: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) types
	$(TEST)

# mkdocstrings imports the package as a wheel has it: the files at the root are in ernie_rna/model.
docs: $(VENV)/installed
	rm -rf build/pages build/package
	mkdir -p build/pages build/package
	cp -r ernie_rna examples build/package
	cp *_ernie_rna.py build/package/ernie_rna/model
	cp --parents -r *.md LICENSE docs recipes/pretraining/*.md recipes/pretraining/*.svg \
		tests/golden/README.md build/pages
	PYTHONPATH=build/package NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

compat: $(VENV)/installed
	$(BIN)/nox --session "$(SESSION)"

fuzz: $(VENV)/installed
	$(BIN)/python -m pytest -q -m fuzz tests/fuzz

portability: $(VENV)/installed
	$(BIN)/python -m scripts.measure_portability

bench: $(VENV)/installed
	$(PIP) --quiet -e ".[bench]"
	$(BIN)/python -m scripts.benchmark

mini: $(VENV)/installed
	PATH=$(CURDIR)/$(BIN):$$PATH recipes/pretraining/make_mini.sh $(RFAM) $(TS0) $(RUNS)

clean:
	rm -rf $(VENV) .nox build dist *.egg-info
