# `make demo` and `make test` do all set-up: an isolated environment from exact pins, then the job. Nothing else is needed.
#
#   PYTHON=python3.12      another interpreter (3.11 or newer)
#   TORCH_INDEX=URL        another torch build, e.g. https://download.pytorch.org/whl/cpu or …/whl/cu130
#   OUT=DIR                where `make demo` writes

PYTHON ?= python3
TORCH_INDEX ?=
VENV ?= .venv
OUT ?= results
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-slow lint types format notebooks bench clean

demo: $(STAMP)
	$(BIN)/ssn-probe run suppress_ss -o "$(OUT)"

# What protects the core; `make test-slow` has the rest: simulated error rates, kills at many moments, whole studies.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow" tests

test-slow: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m slow tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --nbmake notebooks

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/pyright

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Runs the notebooks and keeps their outputs, for readers.
notebooks: $(STAMP)
	$(BIN)/python -m pytest --nbmake --overwrite notebooks

bench: $(STAMP)
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache

$(STAMP): pyproject.toml ssn_probe/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "ssn-probe needs Python 3.11 or newer; $(PYTHON) is older. Install one and say PYTHON=python3.12."; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "$(PYTHON) has no venv module. Install it first; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0
	$(BIN)/python -m pip install -q --disable-pip-version-check -c ssn_probe/constraints.txt -e '.[dev]'
	@touch $@
