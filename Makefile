# make demo | make test | make ui are all a newcomer needs; each installs what it lacks into .venv.
.DEFAULT_GOAL := help
.PHONY: help install demo ui test faults wheel docs check format bench sbom lock clean
SHELL := /bin/bash

OUT ?= qis-demo
BIN := .venv/bin
PYTHON ?= python3
UV := $(or $(shell command -v uv),.uv/bin/uv)

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: .venv/installed  ## everything, at the locked versions, into .venv

.uv/bin/uv: requirements.lock
	@$(PYTHON) -m venv .uv || { echo "make: needs uv, or a python3 with venv (Debian: python3-venv)" >&2; exit 1; }
	@sed -n '/^uv==/,/# via/p' requirements.lock > .uv/uv.lock
	@.uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .uv/uv.lock

.venv/installed: requirements.lock pyproject.toml hatch_build.py $(wildcard qis_connectors/duckdb/extension/*) $(filter .uv/bin/uv,$(UV))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: needs Python 3.11 or newer; try make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Installing the locked environment into .venv; this is done once and takes a minute or two." >&2
	@test -x $(BIN)/python || $(UV) venv --quiet --python $(PYTHON) .venv
	@VIRTUAL_ENV=.venv $(UV) pip sync --quiet --require-hashes requirements.lock
	@VIRTUAL_ENV=.venv $(UV) pip install --quiet --no-deps --no-build-isolation --editable .
	@test -e qis_connectors/duckdb/qis.duckdb_extension || echo "make: installed without the DuckDB extension, which needs a C++ compiler and a network; all the rest works" >&2
	@touch $@

demo: install  ## the BCG loop end to end, as the Dagster assets run it; results in OUT=qis-demo
	@$(BIN)/python -m dagster_project.demo --out $(OUT)

ui: install  ## the Dagster page on the same pipeline and the same data
	@$(BIN)/python -m dagster_project.ui --out $(OUT)

test: install  ## every test but the long ones, on all cores
	@$(BIN)/pytest -n auto

faults: install  ## the long tests: kills, floods, mutated messages, every synthesis on Spark
	@$(BIN)/pytest -m slow

wheel: install  ## a wheel with the DuckDB extension, and an sdist that builds it, into dist/
	@$(BIN)/python -m hatchling build

docs: install  ## docs/answers.md, from the headers of sql/
	@$(BIN)/python -m pipelines.catalogue

bench: install  ## the benchmarks, each with what it is held to
	@for one in benchmarks/*.py; do grep -q __main__ $$one && $(BIN)/python $$one; done

check: install  ## lint, format, types, import arrows
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/pytest -q tests/test_imports.py

format: install  ## mend what ruff can mend
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

sbom: install  ## what is in the locked environment, as a CycloneDX bill of materials
	@$(BIN)/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml --output-reproducible --of JSON -o sbom.cdx.json
	@echo "sbom.cdx.json" >&2

lock: install  ## renew requirements.lock from pyproject.toml
	@$(UV) pip compile pyproject.toml --upgrade --all-extras --group dev --generate-hashes --universal \
		--python-version 3.11 --quiet --custom-compile-command "make lock" -o requirements.lock

clean:  ## remove what the targets above made
	@rm -rf .venv .uv build dist qis_connectors/duckdb/*.duckdb_extension $(OUT) sbom.cdx.json .mypy_cache .pytest_cache .ruff_cache .hypothesis
