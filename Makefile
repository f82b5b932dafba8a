# Everything here makes its own virtual environment; Python, git and make are all it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Without the packaging tools' warnings, which are about themselves.
PIP := PYTHONWARNINGS=ignore $(BIN)/python -m pip
# Quiet: TensorFlow's start-up messages say nothing about this project.
export TF_CPP_MIN_LOG_LEVEL ?= 3

.DEFAULT_GOAL := help
.PHONY: help demo test parity lint format type docs check wheel clean

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade pip
	$(PIP) install --quiet --editable .
	@touch $@

$(VENV)/tested: $(VENV)/installed
	$(PIP) install --quiet --editable ".[test]"
	@# Only the vocabulary file in it is used; its dependencies would bring torch.
	$(PIP) install --quiet --no-deps open-clip-torch
	@touch $@

$(VENV)/linted: $(VENV)/installed
	$(PIP) install --quiet --editable ".[dev]"
	@touch $@

$(VENV)/compared: $(VENV)/tested
	$(PIP) install --quiet --editable ".[parity]"
	@touch $@

demo: $(VENV)/installed ## classify and search shipped pictures, in the terminal and as a page
	@$(BIN)/tf-clip classify examples/pictures --labels-file examples/pictures/labels.txt --top 3 --html demo.html
	@$(BIN)/tf-clip similarity examples/pictures --texts-file examples/pictures/sentences.txt --top 3

test: $(VENV)/tested ## run the tests: fast, offline
	$(BIN)/python -m pytest --ignore=tests/parity

parity: $(VENV)/compared ## compare with transformers and PyTorch in the same run
	$(BIN)/python -m pytest tests/parity -s

lint: $(VENV)/linted ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/linted ## rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: $(VENV)/linted ## check types
	$(BIN)/mypy

docs: $(VENV)/tested ## run the code blocks of README and docs
	$(BIN)/python -m pytest tests/test_docs.py

check: lint type test ## all that CI runs, but for parity

wheel: $(VENV)/tested ## build dist/*.whl
	$(BIN)/python -m build --wheel --outdir dist .

clean: ## remove what was made
	rm -rf $(VENV) build dist *.egg-info demo.html
