# Everything runs in .venv. The first target that needs it creates it from the hashed requirements.
PYTHON ?= $(or $(shell command -v python3.11),python3)
BIN := .venv/bin
WORKERS ?= 2
SEEDS ?= 20000
FUZZ_SECONDS ?= 60
FUZZ_EXAMPLES ?= 5000
IMAGE ?= connector
FUZZED := $(wildcard tests/unit/*/test_fuzz*.py)
.DEFAULT_GOAL := help
.PHONY: help setup demo fast test soak mutants faults fuzz newest cluster coverage check format tools bench docs screenshots site wheel image lock audit sbom clean
.SILENT:

help:  ## Show this list
	grep -E '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):.*## */  make \1\t/' | expand -t 18

setup: .venv/.compiled  ## Create .venv with every dependency and build the compiled parts (1 to 3 minutes, once)

demo: .venv/.compiled  ## Show the connector at work on this machine; needs nothing else (under 1 minute after setup)
	$(BIN)/connector demo $(ARGS)

# The tests marked slow take half of the time of all unit tests: drawn examples, hours of virtual time, processes of their own.
fast: .venv/.compiled  ## Run the unit tests, except the slowest, with few drawn examples (under 1 minute on two idle cores)
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal --hypothesis-profile=fast -m "not slow" $(ARGS) tests/unit \
		tests/project/test_layers.py tests/project/test_source.py

test: check tools  ## Run the checks and all tests, including those on real servers (20 to 30 minutes on two cores)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

soak: .venv/.compiled  ## Simulate SEEDS=20000 worlds of faults and print how to replay those that fail
	$(BIN)/python -m tests.simulation --workers $(WORKERS) 0-$$(($(SEEDS) - 1)) $(ARGS)

mutants: .venv/.compiled  ## Break the core on purpose, in copies; the simulation must notice each time
	$(BIN)/python -m tests.simulation.mutants --workers $(WORKERS) $(ARGS)

faults: tools  ## Kill members and brokers, break connections, change topics under load (minutes); print figures
	FAULTS=long $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -rP $(ARGS) tests/integration/test_faults_*.py

fuzz: .venv/.compiled  ## Feed the compiled modules broken data for FUZZ_SECONDS=60, twice: as they are, and built with sanitizers
	FUZZ_SECONDS=$(FUZZ_SECONDS) FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(BIN)/python -m pytest -n 0 -q -rP $(ARGS) $(FUZZED)
	FUZZ_SECONDS=$(FUZZ_SECONDS) FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(BIN)/python -m tools.sanitized -rP $(ARGS) $(FUZZED)

newest: .venv/.compiled  ## Run the unit tests on the newest Python of this machine (3 to 5 minutes)
	WORKERS=$(WORKERS) tools/newest.sh $(ARGS)

cluster: .venv/.compiled  ## Run the chart on a real Kubernetes API server and Kafka (4 minutes, and once half an hour to build it)
	tools/install.sh
	tools/install_chart.sh
	tools/kubernetes/install.sh
	$(BIN)/python -m pytest -n 0 -rP $(ARGS) tests/integration/test_chart_cluster.py

coverage: .venv/.compiled  ## Show which lines and branches no test without a server reaches (5 minutes)
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal --cov --cov-report=term --cov-report=html:build/coverage $(ARGS) tests/unit tests/contract tests/project

check: .venv/.compiled  ## Run linter, formatter and type checker (under a minute)
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check . || { echo "the files above are not formatted: run make format" >&2; exit 1; }
	$(BIN)/mypy --no-error-summary

format: .venv/.compiled  ## Format the code and fix what the linter can fix
	$(BIN)/ruff format --quiet .
	$(BIN)/ruff check --quiet --fix .

tools: .venv/.compiled  ## Fetch test servers into .tools/: Kafka, registry (Maven), Helm, Toxiproxy (Go), Prometheus, Chromium (apt)
	tools/install.sh
	tools/install_faults.sh
	tools/install_chart.sh
	tools/install_browser.sh
	$(MAKE) .venv/.site

bench: .venv/.compiled tools  ## Measure throughput, latency, rate, memory and single steps (5 minutes; ARGS=micro for one of them)
	$(BIN)/python -m benchmarks $(ARGS)

docs: .venv/.compiled  ## Update the parts of documents and chart that are generated from the code
	$(BIN)/python -m tools.docs
	$(BIN)/python -m tools.reference
	$(BIN)/python -m tools.chart
	$(BIN)/python -m tools.log_events

screenshots: .venv/.compiled  ## Take the console's pictures for docs/console-states.md again (needs Chromium and a Chinese font; 2 minutes)
	$(BIN)/python -m tests.e2e.test_console_screenshots
	SCREENSHOTS=write $(BIN)/python -m pytest -n 0 tests/e2e/test_console_screenshots.py

site: .venv/.site  ## Build the documents as a site into build/site (half a minute; ARGS=serve to look at it while you write)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs $(or $(ARGS),build --strict --quiet)

wheel: .venv/.compiled  ## Build dist/connector-*.whl, which installs without a compiler (half a minute)
	$(BIN)/python -m build --wheel --no-isolation --outdir dist

image:  ## Build the container image IMAGE=connector with Docker or Podman, and run the demo inside it
	engine=$$(command -v docker || command -v podman) || { echo "make image needs Docker or Podman" >&2; exit 1; }; \
	$$engine build --build-arg REVISION=$$(git rev-parse HEAD) -t $(IMAGE) . && $$engine run --rm $(IMAGE) demo

lock:  ## Resolve the requirements again (ARGS=--upgrade for the newest versions)
	test -d .tools/lock || $(PYTHON) -m venv .tools/lock
	.tools/lock/bin/pip install --quiet pip-tools==7.6.2
	.tools/lock/bin/python tools/lock.py $(ARGS)

audit: .venv/.compiled  ## Check the pinned requirements for known vulnerabilities; needs a vulnerability database
	$(BIN)/python -m tools.audit

sbom: .venv/.compiled  ## Write build/sbom.cdx.json: every package of the runtime with hashes and licences
	$(BIN)/python -m tools.sbom

clean:  ## Remove the environment and everything that was fetched or built
	rm -rf .venv .tools build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis connector/*.so connector/*/*.so

.venv/.stamp: requirements/dev.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is required: make PYTHON=...")'
	echo "Creating .venv and installing the dependencies: 1 to 3 minutes, once."
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --disable-pip-version-check --require-hashes -r requirements/dev.txt
	touch $@

# The package itself; compiling needs a C compiler. Repeated when a compiled source changes.
.venv/.compiled: .venv/.stamp pyproject.toml hatch_build.py $(wildcard connector/*/*.pyx connector/*/*.pxi)
	echo "Building the compiled parts: half a minute."
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

# What the site needs besides: the same versions where both need a package.
.venv/.site: .venv/.compiled requirements/docs.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/docs.txt
	touch $@
