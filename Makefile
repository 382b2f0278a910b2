# Everything runs from .venv, which each target makes when it is missing and leaves alone when it is not.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

export HF_HUB_OFFLINE ?= 1
export PYTHONUNBUFFERED := 1

.DEFAULT_GOAL := help
.PHONY: help install demo serve test lint format acceptance simulate chaos bench bench-trainer clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# torch first and by its pin alone: a range would let pip look for other builds of it
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[trainer,text,postgres,dev]'
	@touch $@

install: $(STAMP)  ## make .venv with everything in it

demo: $(STAMP)  ## run a real ablation through three stages and write demo-output/
	$(BIN)/assay demo --out demo-output

serve: $(STAMP)  ## start the service on http://127.0.0.1:8700
	$(BIN)/assay serve

lint: $(STAMP)  ## ruff, format check, mypy strict, import floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)  ## let ruff fix and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: lint  ## lint, then every test but the long ones
	@# two processes, one for each core of CI; a file stays in one of them, with what its tests share
	$(BIN)/pytest -m 'not acceptance' -n 2 --dist loadfile

acceptance: $(STAMP)  ## the protocol at its true size (1,000 / 5,000 / 8,000 steps), tiny twins, services on each database (an hour)
	$(BIN)/pytest tests/services tests/api -n 2 --dist loadfile --either sqlite
	$(BIN)/pytest tests/services tests/api -n 2 --dist loadfile --either postgresql
	$(BIN)/pytest -m acceptance --timeout 3000 -s

chaos: $(STAMP)  ## 100 faults each on SQLite and PostgreSQL against real processes, and a checked history
	PYTHONPATH=tests:tests/services $(BIN)/python -m chaos --database sqlite --faults 100 $(if $(SEED),--seed $(SEED))
	PYTHONPATH=tests:tests/services $(BIN)/python -m chaos --database postgresql --faults 100 $(if $(SEED),--seed $(SEED))

simulate: $(STAMP)  ## 2,000 experiments with seeded faults, and what must hold after every step (10 minutes)
	PYTHONPATH=tests $(BIN)/python -m simulation --experiments 2000 --seed 1 --processes 2

bench: $(STAMP)  ## benchmarks of the service, as ratios
	PYTHONPATH=tests/e2e $(BIN)/python -m benchmarks.run

bench-trainer: $(STAMP)  ## benchmarks of the trainer: step, MoE, checkpoints, start-up, GPU where there is one
	$(BIN)/python -m benchmarks.trainer.run

clean:  ## remove what the targets above made
	rm -rf $(VENV) demo-output acceptance-output bench-output .pytest_cache .mypy_cache .ruff_cache
