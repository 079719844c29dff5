# ranklake: make help
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup run leaderboard search test check ui accept-day update refit migrate care forget release-lease clean-data bench drill lock format
PY := .venv/bin/python
TEST_PROCESSES ?= 2

# make run SOURCE=... DATA=... MAPPING=... ; without them the environment or the defaults decide.
export RANKLAKE_SOURCE := $(or $(SOURCE),$(RANKLAKE_SOURCE))
export RANKLAKE_DATA_PATH := $(or $(DATA),$(RANKLAKE_DATA_PATH))
export RANKLAKE_MAPPING := $(or $(MAPPING),$(RANKLAKE_MAPPING))

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: ## make .venv from the lock; nothing to do if it is up to date
	@bash infra/setup/install.sh

run: setup ## raw logs to models and a report [SOURCE=kuairand|movielens|amazon|amazon_sequences|mind|tencentgr|mapped DATA=<path> MAPPING=<toml>]
	@$(PY) -m jobs.run

leaderboard: setup ## every ranking recipe on one source, resumed from its ledger [SOURCE= DATA= BUDGET_MINUTES=<n> RECIPES=<a,b> RETRY=1]
	@$(PY) -m jobs.leaderboard "$(BUDGET_MINUTES)" "$(RECIPES)" "$(RETRY)"

# Names such as MODEL and SEED may be in a shell's environment for something else: only those given to make count.
given = "$(if $(filter command,$(origin $(1))),$($(1)))"
search: setup ## trials of one model's learning rate, weight decay and dropout [MODEL=ranker|retriever|prompt_ranker TRIALS=<8> PBT=1 ASHA=1 RECIPE= SEED= FIELDS=<path,path=low:high>]
	@$(PY) -m jobs.search $(foreach name,MODEL TRIALS PBT ASHA RECIPE SEED FIELDS,$(call given,$(name)))

test: setup ## all tests [ARGS=<pytest arguments> TEST_PROCESSES=<2>]
	@env -u RANKLAKE_SOURCE -u RANKLAKE_DATA_PATH -u RANKLAKE_MAPPING -u RANKLAKE_HOME -u RANKLAKE_LAKE \
	  -u RAY_ADDRESS \
	  $(PY) -m pytest -q --durations=15 \
	  -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

check: setup ## all static checks
	@bash infra/setup/check.sh

format: setup ## format the code and mend what can be mended
	@.venv/bin/ruff format . && .venv/bin/ruff check --fix-only --quiet .

ui: setup ## Dagster and MLflow web UIs on loopback, until Ctrl-C
	@$(PY) -m jobs.run --prepare-only && exec $(PY) -m infra.web_uis

update: setup ## take in the days that are new, or have changed in the last week: [SINCE=<day>]
	@$(PY) -m jobs.update "$(SINCE)"

refit: setup ## fit percentile cuts again with what arrived since: FROM=<day> [TO=<day>] WHY=<reason>
	@$(PY) -m jobs.refit "$(FROM)" "$(TO)" "$(WHY)"

care: setup ## join small files of the tables and remove old ones [ARGS=--dry-run]
	@$(PY) -m jobs.care $(ARGS)

migrate: setup ## carry the tables of a data home to the contracts of today
	@$(PY) -m jobs.migrate

accept-day: setup ## let a day pass that a check of drift stopped: DAY=<YYYY-MM-DD> WHY="<reason>"
	@$(PY) -m jobs.accept_day "$(DAY)" "$(WHY)"

release-lease: setup ## let others write a table on an object store whose driver you have seen end: TABLE=<name>
	@$(PY) -m jobs.release_lease "$(TABLE)"

# USER is the login name in every environment: only one that was given to make counts.
forget: setup ## remove a user from tables, history, models' records and files for good: USER=<id> or USERS=<file of ids> [WAIT=<seconds>]
	@$(if $(USERS),$(PY) -m jobs.forget "$(WAIT)" < "$$USERS",$(if $(filter command,$(origin USER)),printf '%s\n' "$$USER" | $(PY) -m jobs.forget "$(WAIT)",$(PY) -m jobs.forget "$(WAIT)"))

clean-data: ## remove the data home, after asking
	@bash infra/setup/clean_data.sh

bench: setup ## one measurement: BENCH=<name of a module in tests/benchmarks> [ARGS= BUDGET_MINUTES=<n>, where the bench has it]
	@test -n "$(BENCH)" || { ls tests/benchmarks/*.py 2>/dev/null; echo "say BENCH=<name>"; exit 2; }
	@$(PY) -m tests.benchmarks.$(subst -,_,$(BENCH)) $(ARGS) $(if $(BUDGET_MINUTES),--budget-minutes $(BUDGET_MINUTES))

drill: setup ## one fault drill: NAME=<name of a module tests/benchmarks/drill_<name>.py>
	@test -n "$(NAME)" || { ls tests/benchmarks/drill_*.py 2>/dev/null; echo "say NAME=<name>"; exit 2; }
	@$(PY) -m tests.benchmarks.drill_$(subst -,_,$(NAME)) $(ARGS)

lock: setup ## resolve pyproject.toml into requirements.lock again, for 3.11 and 3.12 alike
	@bash infra/setup/lock.sh
