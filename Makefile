# Each target works on a machine with only Python 3.11: it makes .venv, installs the packages, and runs.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

TEXTS ?= docs/how-to
QUERY ?= ¿Cómo uso varias GPU?
export TEXTS QUERY

.PHONY: commands recipe-keys help demo test search quick check bench siege fuzz check-versions docs clean
.DEFAULT_GOAL := help

help:  ## print this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(INSTALLED)  ## compare MiniLM with mini on sentences in 14 languages, and write a page
	$(BIN)/lusifer demo --output demo-output

test: $(INSTALLED)  ## all tests, without the network
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart=0

search: $(INSTALLED)  ## search a folder of texts in any language: make search TEXTS=FOLDER QUERY="..."
	@HF_HUB_OFFLINE=1 $(BIN)/lusifer index mini --input "$$TEXTS" --output search-output --prune
	@HF_HUB_OFFLINE=1 $(BIN)/lusifer search search-output "$$QUERY"

quick: $(INSTALLED)  ## only the fast tests: they train nothing and start no other process
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --max-worker-restart=0 -m "not slow"

check: $(INSTALLED)  ## linter and the rules of the code base
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -q tests/test_house.py

bench: $(INSTALLED)  ## speed and memory compared with other libraries, as a table
	$(BIN)/python benchmarks/bench.py

siege: $(INSTALLED)  ## damage an index on disk: kills, full disks, two writers, flipped bytes (an hour or more)
	$(BIN)/python benchmarks/index_siege.py --output siege-output.md

FUZZ ?= 100000
fuzz: $(INSTALLED)  ## random inputs to everything that reads input, and a table of the outcomes: make fuzz FUZZ=100000
	HF_HUB_OFFLINE=1 LUSIFER_FUZZ=$(FUZZ) $(BIN)/python -m pytest -q -n 0 tests/fuzz

check-versions: $(INSTALLED)  ## fast tests with the oldest and the newest packages, Python 3.11 to 3.13 (tens of minutes, network)
	$(BIN)/python -m venv .nox/tools
	.nox/tools/bin/pip install --quiet nox uv
	PATH="$(CURDIR)/.nox/tools/bin:$$PATH" .nox/tools/bin/nox --session versions

docs: $(VENV)-docs/.installed  ## build the documentation as a site that needs no network: site-output/index.html
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/mkdocs build --strict --quiet

commands: $(INSTALLED)  ## write docs/commands.md from the help of the commands
	$(BIN)/python docs/site/commands.py

recipe-keys: $(INSTALLED)  ## write docs/recipe-keys.md from the schema of recipes
	$(BIN)/python docs/site/recipe_keys.py

# The packages of the extra docs without Lusifer and torch: the site is made from the source, which is not imported.
$(VENV)-docs/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['docs'], sep='\n')" > $(VENV)-docs/requirements.txt
	$(VENV)-docs/bin/python -m pip install --quiet --constraint constraints.txt --requirement $(VENV)-docs/requirements.txt
	touch $(VENV)-docs/.installed

clean:  ## remove the files that the other targets made
	rm -rf $(VENV) $(VENV)-docs demo-output search-output site-output

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	# torch first and pinned: without the pin, pip would install the largest build.
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,mini,report,data]'
	touch $(INSTALLED)
