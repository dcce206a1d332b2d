PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all lint

demo: .venv/installed
	$(BIN)/python train.py
	$(BIN)/python validate.py --val_amp_level O3 --compare_amp_level O0 --result_file runs/digits/validation.json
	$(BIN)/python export.py --overwrite
	$(BIN)/python predict.py data/digits/val/7

test: .venv/installed-test
	$(BIN)/python -m pytest -m "not long"

test-all: .venv/installed-test lint
	$(BIN)/python -m pytest

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.venv/bin/python:
	$(PYTHON) -c 'import sys; assert (3, 10) <= sys.version_info[:2] <= (3, 12), "Python %d.%d: expected 3.10 to 3.12, give it as PYTHON=python3.11" % sys.version_info[:2]'
	$(PYTHON) -m venv .venv

.venv/installed: requirements.txt pyproject.toml .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/installed-test: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[test]"
	touch $@
