# Everything is built in .venv from the lock file, with nothing but Python and make. `make help` lists the targets.

PYTHON ?= python3
BIN := .venv/bin
# The lock is complete: nothing is left to resolve. Python compiles what it imports, and leaves out the rest.
PIP := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-compile --no-deps
NEWEST_DAY = $(shell $(BIN)/python -W ignore -m user_processing newest-day)
DAY ?= $(NEWEST_DAY)
PORT ?= 8000
UI_PORT ?= 3000
PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist loadgroup
# Leaves Dagster's debug events to the UI.
QUIET := {"loggers": {"console": {"config": {"log_level": "INFO"}}}}
ifdef FROM
TO ?= $(NEWEST_DAY)
DAYS = {"dagster/asset_partition_range_start": "$(FROM)", "dagster/asset_partition_range_end": "$(TO)"}
else
DAYS = {"dagster/partition": "$(DAY)"}
endif

ifdef TO
ifndef FROM
$(error TO needs FROM: the first day of the range)
endif
endif

ifdef CANCEL
BACKFILL = cancel $(CANCEL)
else ifdef RESUME
BACKFILL = resume $(RESUME)
else ifdef FROM
BACKFILL = create --from $(FROM) --to $(TO) $(REPROCESS:%=--reprocess %)
else
BACKFILL = list
endif
BACKFILL_RUNS = $(if $(CANCEL),,$(if $(FROM)$(RESUME),$(if $(BACKWARDS),--backwards) $(if $(DRY_RUN),--dry-run) \
	$(MAX_ACTIVE_RUNS:%=--max-active-runs %) $(DAYS_PER_RUN:%=--days-per-run %)))

.DEFAULT_GOAL := help
.PHONY: help run backfill dev test coverage test-faults bench check format api psql show lock clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

run: .venv/installed .env ## Take a day from the API to Postgres: the newest, DAY=2023-01-01, or FROM=2023-01-01 TO=2023-01-31
	@$(if $(FROM)$(filter-out file,$(origin DAY)),$(BIN)/python -W ignore -m user_processing check-days $(if $(FROM),$(FROM) $(TO),$(DAY) $(DAY)))
	@echo '$(QUIET)' | $(BIN)/python -W ignore -m dagster job execute -m user_processing -j user_processing --tags '$(DAYS)' -c /dev/stdin
	@$(BIN)/python -m user_processing show

backfill: .venv/installed .env ## Queue the days FROM … TO …, RESUME or CANCEL a backfill, or list them; docs/scheduling.md has the rest
	@PYTHONWARNINGS=ignore $(BIN)/python -m user_processing.backfill $(BACKFILL) $(BACKFILL_RUNS)

show: .venv/installed .env ## Show what is in the table: rows per day and country
	@$(BIN)/python -m user_processing show

dev: .venv/installed .env ## Open the UI on http://127.0.0.1:3000 (UI_PORT), with the schedule and the sensor running
	@$(BIN)/dagster dev --port $(UI_PORT)

api: .venv/installed ## Run the stand-in for the API by itself, on PORT (8000)
	@$(BIN)/python -m user_processing.embedded.api --port $(PORT)

psql: .venv/installed .env ## Open psql on the users' database
	@$(BIN)/python -m user_processing psql

test: .venv/installed-dev .env ## Run the tests
	@$(PYTEST) -m "not faults"

coverage: .venv/installed-dev .env ## Run the tests and measure the branches they cover
	@$(PYTEST) -m "not faults" --cov

test-faults: .venv/installed-dev .env ## Run the tests that kill runs, servers and daemons, and look for leaks
	@$(PYTEST) --numprocesses 4 -m faults

bench: .venv/installed ## Measure how long a tick of the sensor takes
	@$(BIN)/python -W ignore -m benchmarks.sensor_tick

check: .venv/installed-dev ## Lint, formatting, types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

format: .venv/installed-dev ## Format the code and mend what the linter can
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

lock: .venv/installed-dev ## Write the lock files anew from pyproject.toml
	@for name in "" -dev; do \
		$(BIN)/uv pip compile pyproject.toml --group build $${name:+--group dev} --universal --python-version 3.11 \
			--generate-hashes --no-emit-index-url --no-annotate --no-header --quiet --upgrade -o requirements$$name.lock; \
	done

clean: ## Stop the embedded Postgres; remove it, all days, all runs and the environment
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m user_processing stop; fi
	@rm -rf .venv .local .tmp_dagster_home_* .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis logs .logs_queue *.egg-info

# Says where the instance is to the commands of Dagster that will not guess, such as `dagster job launch`.
.env:
	@printf '# Read by every dagster command that is run in this folder. .env.example lists what else can stand here.\nDAGSTER_HOME=$${PWD}\n' > $@

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 …") if sys.version_info < (3, 11) else None'
	@echo "Building .venv from requirements.lock; this takes a minute, once."
	@$(PYTHON) -m venv .venv
	@$(PIP) --require-hashes -r requirements.lock
	@$(PIP) --no-build-isolation --editable .
	@touch $@

.venv/installed-dev: .venv/installed requirements-dev.lock
	@echo "Adding the development tools to .venv."
	@$(PIP) --require-hashes -r requirements-dev.lock
	@touch $@
