# make demo [CHECKPOINT=path]   predict structures of real RNAs and check that conversion is exact
# make test [PROCESSES=N]       run the default tests
# make test-slow                run the tests that take minutes
# make test-long [SEQUENCES=N]  test a long run of embed: killed, shared, on a full disk
# make space                    serve the web page on this machine
# make space-folder             write the folder of a Space on the Hub, build/space
# make test-browser             test the web page in a headless Chromium
# make types                    run mypy on a copy with the layout of a wheel
# make check                    run ruff, mypy and the default tests
# make docs                     build the pages and the docstrings as a site, build/site
# make compat [SESSION=name]    run the core tests with several versions of transformers and torch
# make fuzz                     read 10,000 damaged files with each reader; print their table
# make portability              compare other numbers of threads and instructions; print their table
# make bench                    print the speed and memory tables of docs/benchmarks.md
# make mini RFAM=table TS0=table   train the model mini in hours; see recipes/pretraining/README.md
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CHECKPOINT ?=
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
SEQUENCES ?= 100000
PROCESSES ?= 2
SESSION ?= core
RUNS ?= runs
# One process runs all tests of a file. There are more threads than cores, so waiting threads sleep.
TEST := OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -q -n $(PROCESSES) --dist loadfile

.PHONY: demo space space-folder test test-slow test-long test-browser types check docs compat fuzz portability bench mini clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --quiet -e ".[dev]"
	touch $@

# The demo installs less than the tests do, and shows the output of pip.
$(VENV)/installed-demo: pyproject.toml constraints.txt
	@echo "Installs torch, transformers, matplotlib and their dependencies into $(VENV) (700 MB)."
	@echo "Downloads about 80 MB, and torch: 190 MB without CUDA, gigabytes with CUDA."
	@echo "On Linux PyPI has torch with CUDA. To get it without CUDA, stop this and first run"
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

# mypy does not follow `__path__`, and would treat the root files, whose imports are relative, as
# top-level modules. So it checks a copy in which they are where a wheel has them.
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

# mkdocstrings imports a copy with the layout of a wheel: the root files are in ernie_rna/model.
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
