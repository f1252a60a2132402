PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
CODE := arena attacks defenses leaderboards mmguard tests
KILLS ?= 30
INPUTS ?= 1000
SEED ?= 0
MINUTES ?= 60
CHAOS ?=
SPEED ?=
SUITES ?= quick stage mmguard mmguard-ablations transfer attacks attacks-more adaptive protections protections-digits autopurify
PAGES ?= stage mmguard transfer attacks protections
RUN ?=

.PHONY: demo records test lint docs bench profile gpu-speed chaos clean

demo: $(INSTALLED)  ## run the quick suite and print its board
	$(BIN)/arena run quick --results build/demo/quick.jsonl

records: $(SUITES:%=record-%) $(PAGES:%=page-%)  ## all records anew, in build, and their pages; goes on where it ended

record-%: $(INSTALLED)
	$(BIN)/arena run $* --results build/records/$*.jsonl --store build/store $(RUN)

page-%: $(INSTALLED)
	$(BIN)/arena evidence build/$*.md

test: $(INSTALLED)  ## run the test suite
	$(BIN)/python -m compileall -q $(CODE)  # else each of many hundred processes compiles it again
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(INSTALLED)  ## write the pages that are generated from code
	$(BIN)/python -m arena.suites.reference
	$(BIN)/python -m leaderboards.columns.page

bench: $(INSTALLED)
	$(BIN)/python -m pytest tests/benchmarks --benchmark-only

profile: $(INSTALLED)  ## where the time of a cell goes; writes arena/engine/PROFILE.md
	$(BIN)/python tests/benchmarks/where_time_goes.py

gpu-speed: $(INSTALLED)  ## crafting and fine-tuning against the peak of the GPU that is there
	$(BIN)/python tests/benchmarks/gpu_speed.py $(SPEED)

chaos: $(INSTALLED)  ## kill, starve and fuzz runs at random; CHAOS has other options, see tests/chaos
	$(BIN)/python -m tests.chaos --kills $(KILLS) --inputs $(INPUTS) --seed $(SEED) --minutes $(MINUTES) $(CHAOS)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv build *.egg-info
