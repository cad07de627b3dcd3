# Everything runs in .venv, which the first target that needs it makes from the hashed requirements.
PYTHON ?= $(or $(shell command -v python3.11),python3)
BIN := .venv/bin
WORKERS ?= 2
SEEDS ?= 20000
.DEFAULT_GOAL := help
.PHONY: help demo test soak mutants faults check format tools bench docs lock clean
.SILENT:

help:  ## Show this list
	grep -E '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):.*## */  make \1\t/' | expand -t 16

demo: .venv/.compiled  ## Show the connector at work on this machine, nothing else needed (under a minute)
	$(BIN)/connector demo $(ARGS)

test: check tools  ## Run the checks and every test, on real Kafka where Maven could fetch it
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

soak: .venv/.compiled  ## Simulate SEEDS=20000 worlds of faults, and print how to replay those that fail
	$(BIN)/python -m tests.simulation --workers $(WORKERS) 0-$$(($(SEEDS) - 1)) $(ARGS)

mutants: .venv/.compiled  ## Break the core on purpose, in copies, and see the simulation notice each time
	$(BIN)/python -m tests.simulation.mutants --workers $(WORKERS) $(ARGS)

faults: tools  ## Kill members and brokers, cut connections, change topics under load, for minutes; figures at the end
	FAULTS=long $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -rP $(ARGS) tests/integration/test_faults_*.py

check: .venv/.compiled  ## Run linter (docstrings included), formatter and type checker
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check . || { echo "the files above are not formatted: run make format" >&2; exit 1; }
	$(BIN)/mypy --no-error-summary

format: .venv/.compiled  ## Format the code and mend what the linter can
	$(BIN)/ruff format --quiet .
	$(BIN)/ruff check --quiet --fix .

tools: .venv/.compiled  ## Fetch Kafka and a registry (Maven), Helm and Toxiproxy (Go), Prometheus (apt) into .tools/; Chromium (apt, as root)
	tools/install.sh
	tools/install_faults.sh
	tools/install_chart.sh
	tools/install_browser.sh

bench: .venv/.compiled tools  ## Measure throughput beside a plain script, latency, rate, memory and single steps (ARGS=micro: one of them)
	$(BIN)/python -m benchmarks $(ARGS)

docs: .venv/.compiled  ## Write again what documents take from the code
	$(BIN)/python -m tools.docs
	$(BIN)/python -m tools.reference
	$(BIN)/python -m tools.chart
	$(BIN)/python -m tools.log_events

lock:  ## Resolve the requirements anew (ARGS=--upgrade for the newest versions)
	test -d .tools/lock || $(PYTHON) -m venv .tools/lock
	.tools/lock/bin/pip install --quiet pip-tools==7.6.2
	.tools/lock/bin/python tools/lock.py $(ARGS)

clean:  ## Remove the environment and everything that was fetched or built
	rm -rf .venv .tools build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis connector/*.so connector/*/*.so

.venv/.stamp: requirements/dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	touch $@

# The package itself, parts of it compiled where there is a C compiler; again whenever those change.
.venv/.compiled: .venv/.stamp hatch_build.py connector/codec/reader.pyx connector/uuid_text.pyx
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@
