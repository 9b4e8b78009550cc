# Thin on purpose: what a target does stands in one file, named in its command.
PYTHON := $(CURDIR)/.venv/bin/python
SOURCES := orchestrator node aggregator dashboards tests
IN_BOX := $(PYTHON) -m orchestrator.boxes.box run --

.DEFAULT_GOAL := help
.NOTPARALLEL:

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^##@/ {printf "%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Use
.PHONY: setup scenario swarm ipfs kubo images
setup: ## Install the host's tools, Python 3.11 and the locked packages (cached)
	@python3 -m orchestrator.setup
	@ln -sfn ../../orchestrator/shoal.sh .venv/bin/shoal

scenario: setup $(if $(NAME),ipfs) ## Run NAME=baseline (SEED=, DRIVER=, ARGS=) to its verdict; without NAME list the scenarios
	@.venv/bin/shoal $(if $(NAME),run $(NAME) $(SEED:%=--seed %) $(DRIVER:%=--driver %) $(ARGS),list)

swarm: setup ipfs ## Run five IPFS daemons that fetch from and tunnel to each other; ARGS="--help" tells more
	@$(PYTHON) -m orchestrator.swarm $(ARGS)

ipfs: ## Build the embedded IPFS daemon (cached) and print its path
	@python3 node/ipfs/build.py

kubo: ## Fetch the official Kubo release, check it, and print its path
	@python3 node/ipfs/fetch_kubo.py

images: setup ipfs ## Make or fetch the images that fleets of containers need (WAY=registry or packages), print their names
	@$(PYTHON) -m orchestrator.containers.images $(WAY:%=--way %)

##@ Test
.PHONY: test test-unit test-beside test-parts test-go test-conformance test-box test-learning test-links test-fleet test-run test-netem test-docker test-long bench bench-ipfs bench-network
test: setup lint ipfs test-beside test-conformance test-unit test-parts test-box test-links test-fleet test-run test-docker ## Run everything that CI runs

test-unit: setup ## Run the tests that need no daemon and no box
	@$(PYTHON) -m pytest -p tests.forked --forks 6 --quiet tests/unit

test-beside: setup ipfs ## Run test-netem and, beside it, what measures no time: test-go and test-learning
	@AMONG=$(filter test,$(MAKECMDGOALS)) $(PYTHON) -m tests.side_by_side --first test-netem test-go tests/learning

test-parts: setup ## Run the tests that start processes, build, or make whole data sets
	@$(PYTHON) -m pytest tests/parts

test-go: ipfs ## Check the embedded daemon's own code: format, vet, staticcheck, tests with the race detector
	@python3 node/ipfs/build.py run node/ipfsd/check.sh

test-conformance: setup ipfs ## Run the kit recorded from Kubo against the embedded daemon, in a box
	@$(IN_BOX) env HOME=/run TMPDIR=/run PYTHON=$(PYTHON) \
		tests/conformance/up.sh "$$(python3 node/ipfs/build.py | tail -n 1)"

test-box: setup ## Test the box itself, as this user and, if that is root, as an unprivileged one
	@$(PYTHON) -m pytest tests/box

test-learning: setup ## Test what needs TensorFlow Federated
	@$(PYTHON) -m pytest tests/learning

test-run: setup ipfs ## Run whole scenarios from the command line
	@$(PYTHON) -m pytest tests/run

test-links: setup ## Test emulated links with this kernel's delay engine, in a box
	@$(IN_BOX) $(PYTHON) -m pytest tests/links

test-fleet: setup ipfs ## Test with real daemons, in a box
	@$(IN_BOX) $(PYTHON) -m pytest tests/fleet

test-netem: setup ## Test what netem does to links (or ARGS=) on a kernel that has it, in an emulated machine
	@$(PYTHON) -m tests.netem.guest $(if $(filter test,$(MAKECMDGOALS) $(AMONG)),--or-skip) $(ARGS)

test-docker: setup ipfs ## Test fleets of containers (or ARGS=) on the Docker engine that answers, else on one of their own
	@$(PYTHON) -m tests.docker.engine $(if $(filter test,$(MAKECMDGOALS)),--or-skip) $(ARGS)

test-long: setup ipfs ## Run the tests that take minutes: longer fuzzing, long cuts in a box, all scenarios, all links with netem
	@FUZZTIME=20s python3 node/ipfs/build.py run node/ipfsd/check.sh
	@$(IN_BOX) $(PYTHON) -m pytest -m long tests/fleet
	@$(PYTHON) -m pytest -m long tests/run
	@$(PYTHON) -m tests.docker.engine --or-skip -m long
	@$(PYTHON) -m tests.netem.guest --or-skip --timeout 1800 tests/links

bench: setup ipfs ## Measure what a round costs beside its training, write runs/bench/latest.json
	@$(PYTHON) -m tests.bench.rounds

bench-ipfs: setup ipfs ## Measure the IPFS daemons, print the table, write runs/bench/ipfs.json
	@$(IN_BOX) $(PYTHON) -m tests.bench.ipfs $(ARGS)

bench-network: setup ipfs ## Measure the emulated network and what it costs (ARGS="--only skew"), write runs/bench/network.json
	@$(PYTHON) -m tests.bench.network $(ARGS)

##@ Change
.PHONY: lint format lock clean
lint: setup ## Check style, format and types
	@$(PYTHON) -m ruff check --quiet .
	@$(PYTHON) -m ruff format --quiet --check .
	@$(PYTHON) -m mypy $(SOURCES)

format: setup ## Format the Python code and mend what ruff can mend
	@$(PYTHON) -m ruff check --quiet --fix .
	@$(PYTHON) -m ruff format --quiet .

lock: setup ## Resolve pyproject.toml into requirements.lock anew
	@python3 -m orchestrator.setup lock

clean: ## Remove the environment, the caches and the runs' results
	@rm -rf .venv .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache runs
