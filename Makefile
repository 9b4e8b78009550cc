# Thin on purpose: each target is one command. `make help` lists them.
PYTHON := .venv/bin/python
SOURCES := orchestrator node aggregator tests
.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Install the host's tools, Python 3.11 and the locked packages (cached)
	@python3 -m orchestrator.setup

.PHONY: lock
lock: setup ## Resolve pyproject.toml into requirements.lock anew
	@python3 -m orchestrator.setup lock
