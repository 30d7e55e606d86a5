# Each chore is one command, the same for people and for CI. Needs make, Python 3.11 or newer, and the package registry.

VENV := .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/ready
LOCK := uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-annotate --no-header

export UV_COMPILE_BYTECODE := 1  # without it every import of torch compiles it again where .pyc files are not written

.PHONY: help setup demo test test-real test-distributed test-all bench check format lock clean

help:  ## show the chores
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup: $(READY)  ## make .venv with the tested versions; quick when nothing changed

$(READY): pyproject.toml constraints.txt scripts/setup.sh
	@sh scripts/setup.sh $(VENV)
	@touch $@

demo: setup  ## what pretraining is worth on pictures, texts and sounds: no data, no network
	$(VENV)/bin/headstart demo

test: setup  ## the default tests, offline, three to eight minutes
	$(PYTHON) -m pytest -n 2 --dist worksteal

test-real: setup  ## the tests on real data beside the checkout
	$(PYTHON) -m pytest -m "real and not slow"

test-distributed: setup  ## the tests that start two processes
	$(PYTHON) -m pytest -m distributed

test-all: setup  ## every test that needs no network
	$(PYTHON) -m pytest -m "not network"

bench: setup  ## what the stored results lack, and the tables (hours); PEER=.peer/bin/python adds fastai
	$(PYTHON) -m benchmarks.transfer $(if $(PEER),--peer $(PEER))
	$(PYTHON) -m benchmarks.probe --sets hymenoptera pacs --peer --epochs-timed 3
	$(PYTHON) -m benchmarks.probe --sets hymenoptera pacs --accuracy-seeds 5
	$(PYTHON) -m benchmarks.gradual $(if $(PEER),--peer $(PEER))
	$(PYTHON) -m benchmarks.frontier
	$(PYTHON) -m benchmarks.scale
	$(PYTHON) -m benchmarks.text
	$(PYTHON) -m benchmarks.text --pairs 3
	$(PYTHON) -m benchmarks.sound
	$(PYTHON) -m benchmarks.sound --pairs 3
	$(PYTHON) -m benchmarks.builtin
	$(PYTHON) -m benchmarks.tables

check: setup  ## style, formatting and types
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

format: setup  ## let ruff put the code in order
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

lock:  ## choose the newest versions anew and write constraints.txt
	$(LOCK) --upgrade --output-file constraints.txt --quiet

clean:  ## remove what can be made again
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache dist
