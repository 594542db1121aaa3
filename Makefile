# Each target starts from a bare machine with Python 3.11: it makes .venv, installs, and runs.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

TEXTS ?= docs/how-to
QUERY ?= ¿Cómo uso varias GPU?
export TEXTS QUERY

.PHONY: commands recipe-keys help demo test search quick check bench siege fuzz check-versions docs clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(INSTALLED)  ## sentences in 14 languages found by questions in others, MiniLM beside mini, as a page
	$(BIN)/lusifer demo --output demo-output

test: $(INSTALLED)  ## all tests, no network
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart=0

search: $(INSTALLED)  ## ask a folder of texts in any language: make search TEXTS=FOLDER QUERY="..."
	@HF_HUB_OFFLINE=1 $(BIN)/lusifer index mini --input "$$TEXTS" --output search-output --prune
	@HF_HUB_OFFLINE=1 $(BIN)/lusifer search search-output "$$QUERY"

quick: $(INSTALLED)  ## the tests of every room that train nothing and start nothing, for while you work
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --max-worker-restart=0 -m "not slow"

check: $(INSTALLED)  ## linter and the rules of the house
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -q tests/test_house.py

bench: $(INSTALLED)  ## speed and memory beside the peers, one table
	$(BIN)/python benchmarks/bench.py

siege: $(INSTALLED)  ## an index on disk under attack: kills, full disks, two writers, flipped bytes; an hour or more
	$(BIN)/python benchmarks/index_siege.py --output siege-output.md

FUZZ ?= 100000
fuzz: $(INSTALLED)  ## inputs at random over every surface, and a table of what became of them: make fuzz FUZZ=100000
	HF_HUB_OFFLINE=1 LUSIFER_FUZZ=$(FUZZ) $(BIN)/python -m pytest -q -n 0 tests/fuzz

check-versions: $(INSTALLED)  ## fast tests on the oldest and the newest packages, Python 3.11 to 3.13 (tens of minutes, network)
	$(BIN)/python -m venv .nox/tools
	.nox/tools/bin/pip install --quiet nox uv
	PATH="$(CURDIR)/.nox/tools/bin:$$PATH" .nox/tools/bin/nox --session versions

docs: $(VENV)-docs/.installed  ## the documentation as a site that needs no network: site-output/index.html
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/mkdocs build --strict --quiet

commands: $(INSTALLED)  ## docs/commands.md, written from the help of the commands
	$(BIN)/python docs/site/commands.py

recipe-keys: $(INSTALLED)  ## docs/recipe-keys.md, written from the schema of recipes
	$(BIN)/python docs/site/recipe_keys.py

# The packages of the extra docs without Lusifer and torch: the site is made from the source, which is not imported.
$(VENV)-docs/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['docs'], sep='\n')" > $(VENV)-docs/requirements.txt
	$(VENV)-docs/bin/python -m pip install --quiet --constraint constraints.txt --requirement $(VENV)-docs/requirements.txt
	touch $(VENV)-docs/.installed

clean:  ## remove what the other targets made
	rm -rf $(VENV) $(VENV)-docs demo-output search-output site-output

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	# torch first and pinned: an open range would fetch the largest build there is.
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,mini,report,data]'
	touch $(INSTALLED)
