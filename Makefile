# Everything is built in .venv from the lock file, with nothing but Python and make. `make help` lists the targets.

PYTHON ?= python3
BIN := .venv/bin
COMMAND = @$(BIN)/python -W ignore -m user_processing
# The lock is complete: nothing is left to resolve. Python compiles what it imports, once, and leaves out the rest. Some
# containers' environments forbid it to keep that, and then each command would compile Dagster anew, for three seconds.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps
PORT ?= 8000
UI_PORT ?= 3000
PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist loadgroup
FAST_TESTS := user_processing_tests/unit user_processing_tests/integration
given = $(if $(strip $($(1))),$(2) '$(strip $($(1)))')
flag = $(if $(filter-out 0 no false,$($(1))),$(2))

# What can be given to a target, besides PYTHON, pip's variables and the settings.
KNOWN.run := DAY FROM TO FRESH
KNOWN.backfill := FROM TO DAYS_PER_RUN MAX_ACTIVE_RUNS BACKWARDS DRY_RUN REPROCESS CANCEL RESUME YES
KNOWN.dev := UI_PORT
KNOWN.api := PORT
KNOWN.test-compose := QUEUED_BACKFILL
KNOWN.reset := YES
GIVEN := $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name)))
KNOWN := PYTHON PIP_% DAGSTER_HOME $(shell sed -n 's/^\# \([A-Z_]*\)=.*/\1/p' .env.example) \
	$(foreach target,$(MAKECMDGOALS),$(KNOWN.$(target)))
UNKNOWN := $(filter-out $(KNOWN),$(GIVEN))
ifneq ($(UNKNOWN),)
$(error $(shell $(PYTHON) -c 'import difflib, sys; name, *known = sys.argv[1:]; \
	upper = {known.upper(): known for known in known}; near = difflib.get_close_matches(name.upper(), upper, 1, 0.5); \
	print(f"make $(MAKECMDGOALS) has no variable {name}.", *[f"Did you mean {upper[it]}?" for it in near], \
	"It knows $(strip $(foreach target,$(MAKECMDGOALS),$(KNOWN.$(target)))) and the settings in .env.example")' \
	$(firstword $(UNKNOWN)) $(filter-out PIP_%,$(KNOWN))))
endif

BACKFILL = $(if $(CANCEL),cancel '$(CANCEL)',$(if $(RESUME),resume '$(RESUME)',$(if $(FROM)$(TO),create,list))) \
	$(call given,FROM,--from) $(call given,TO,--to) $(call given,REPROCESS,--reprocess) \
	$(call given,DAYS_PER_RUN,--days-per-run) $(call given,MAX_ACTIVE_RUNS,--max-active-runs) \
	$(if $(BACKWARDS),$(or $(call flag,BACKWARDS,--backwards),--forwards)) $(call flag,DRY_RUN,--dry-run) $(call flag,YES,--yes)

.DEFAULT_GOAL := help
.PHONY: help run backfill status show psql dev api test coverage test-faults test-code-server test-compose bench check format lock docs stop clean reset
FORCE:

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

run: .venv/installed .env ## Take a day from the API to Postgres: the newest, DAY=2023-01-01, or FROM=2023-01-01 TO=2023-01-31
	$(COMMAND) run $(call given,DAY,--day) $(call given,FROM,--from) $(call given,TO,--to) $(call flag,FRESH,--fresh)

backfill: .venv/installed .env ## Queue the days FROM … TO …, RESUME or CANCEL a backfill, or list them; docs/scheduling.md has the rest
	$(COMMAND) backfill $(BACKFILL)

status: .venv/installed .env ## Say what is stored, runs, waits and is missing
	$(COMMAND) status

show: .venv/installed .env ## Show what is in the table: rows per day and country
	$(COMMAND) show

psql: .venv/installed .env ## Open psql on the users' database
	$(COMMAND) psql

dev: .venv/installed .env ## Open the UI on http://127.0.0.1:3000 (UI_PORT), with the schedule and the sensor running
	$(COMMAND) dev --port '$(UI_PORT)'

api: .venv/installed ## Run the stand-in for the API by itself, on PORT (8000)
	$(COMMAND) api --port '$(PORT)'

test: .venv/installed-dev .env ## Run the tests
	@$(PYTEST) $(FAST_TESTS)

coverage: .venv/installed-dev .env ## Run the tests and measure the branches they cover
	@$(PYTEST) $(FAST_TESTS) --cov

test-faults: .venv/installed-dev .env ## Run the tests that kill runs, servers and daemons, and look for leaks
	@$(PYTEST) user_processing_tests/faults --numprocesses 4 -m "not alone"

test-code-server: .venv/installed-dev .env ## Kill, stop and upgrade the code server under 40 queued days; five minutes
	@$(PYTEST) user_processing_tests/faults --numprocesses 0 -m alone

test-compose: ## Test the containers, on a Docker engine with compose and buildx
	@$(PYTHON) -m user_processing_tests.containers $(call flag,QUEUED_BACKFILL,--queued-backfill)

bench: .venv/installed ## Measure how long a tick of the sensor takes
	@$(BIN)/python -W ignore -m benchmarks.sensor_tick

check: .venv/installed-dev ## Lint, formatting, types, import contracts, declared dependencies
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo >/dev/null || $(BIN)/lint-imports
	@$(BIN)/deptry user_processing

format: .venv/installed-dev ## Format the code and mend what the linter can
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

lock: .venv/installed-dev ## Write the lock files anew from pyproject.toml
	@for name in "" -dev; do \
		$(BIN)/uv pip compile pyproject.toml --group build $${name:+--group dev} --universal --python-version 3.11 \
			--generate-hashes --no-emit-index-url --no-annotate --no-header --quiet --upgrade -o requirements$$name.lock; \
	done

docs: .venv/installed ## Write .env.example and the README's tables of settings and columns anew
	$(COMMAND) docs

stop: .venv/installed .env ## Stop the embedded Postgres
	$(COMMAND) stop

clean: ## Remove the environment and the caches; data, runs and .env stay
	@if [ -x $(BIN)/python ]; then $(BIN)/python -W ignore -m user_processing stop --idle; fi
	@rm -rf .venv .tmp_dagster_home_* .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis logs .logs_queue *.egg-info

reset: .venv/installed .env ## Delete all data that is kept here: users, runs, files of days; asks before (YES=1: does not)
	$(COMMAND) reset $(call flag,YES,--yes)

# Says where the instance is to the commands of Dagster that will not guess, from every folder, also when this one moves.
.env: FORCE
	@$(PYTHON) user_processing/cli/env_file.py

# The programs in .venv know the path of this folder: after a move they are built anew.
ifneq ($(shell cat .venv/installed 2>/dev/null),$(CURDIR))
CLEAR := --clear
.venv/installed: FORCE
endif

# pip itself says "No matching distribution found" where it cannot reach an index.
install = $(PIP) $(1) 2>.venv/pip.log || { cat .venv/pip.log >&2; \
	! grep -q 'connection broken by\|Could not fetch URL\|Max retries exceeded' .venv/pip.log || \
	echo 'The package index cannot be reached. Look at the network; PIP_INDEX_URL names another index, HTTPS_PROXY a proxy. Then run the same command again.' >&2; \
	exit 1; }

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 …") if sys.version_info < (3, 11) else None'
	@echo "Building .venv from requirements.lock; this takes a minute, once."
	@$(PYTHON) -m venv $(CLEAR) .venv
	@$(call install,--require-hashes -r requirements.lock)
	@$(call install,--no-build-isolation --editable .)
	@printf '%s\n' '$(CURDIR)' >$@

.venv/installed-dev: .venv/installed requirements-dev.lock
	@echo "Adding the development tools to .venv."
	@$(call install,--require-hashes -r requirements-dev.lock)
	@touch $@
