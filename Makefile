# Every target needs Python 3.11–3.13 and make, nothing else: config/bootstrap.py makes .venv and fills it once.
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do command -v $$name >/dev/null && echo $$name && break; done || echo python3)
RUN = $(PYTHON) config/bootstrap.py run
DEV = $(PYTHON) config/bootstrap.py dev
ARGS ?=

.PHONY: run test lint imports types check bench bench-history faults fuzz soak manage services clean

run:  ## the whole stack, until Ctrl-C; honours HOST, PORT, WEB_WORKERS, DATABASE_URL, REDIS_URL, DATA_DIR
	@exec $(RUN) -m config.stack run

test:  ## make test ARGS="tests/unit -k words"
	@exec $(DEV) -m config.stack test -- $(ARGS)

lint:
	@$(DEV) -m ruff check
	@$(DEV) -m ruff format --check
	@$(MAKE) --no-print-directory imports

imports:
	@$(DEV) -c 'from importlinter.cli import lint_imports_command as lint; lint()'

types:
	@SECRET_KEY=types $(DEV) -m mypy .

check: lint types test  ## what CI runs

bench:
	@exec $(DEV) -m config.stack scratch -- -m benchmarks $(ARGS)

bench-history:  ## what the past costs: make bench-history ARGS="--trace PATH" or ARGS="--updates 10000 --alone"
	@exec $(DEV) -m config.stack scratch -- -m benchmarks history $(ARGS)

faults:  ## everything breaks while people type, up to 35 minutes: make faults ARGS="--seed 7" or "--short"
	@exec $(DEV) -m tests.faults $(ARGS)

fuzz:  ## a million hostile inputs: make fuzz ARGS="--seed 7 --cases 20000"; ARGS="--seed 7 --only 1234" repeats one
	@exec $(DEV) -m tests.fuzz $(ARGS)

soak:  ## an hour of people coming and going: does it hold ever more? make soak ARGS="--minutes 5"
	@exec $(DEV) -m config.stack scratch -- -m tests.soak $(ARGS)

manage:  ## manage.py on the stack that runs: make manage ARGS="verify_history"
	@exec $(RUN) -m config.stack manage -- $(ARGS)

services:  ## fresh PostgreSQL and Valkey in the foreground, for `manage.py` and pytest by hand
	@exec $(DEV) -m config.stack services

clean:  ## what can be made again; documents (.data) stay
	rm -rf .venv .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
