# make demo: install and run the demo.   make test: install and run the tests, ruff and mypy.
# make test-slow: the tests that take minutes, which `make test` leaves out.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow clean

demo: .venv/installed
	$(BIN)/hsgd-emu run runs/demo.yaml --force

test: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q

test-slow: .venv/installed-dev
	$(BIN)/python -m pytest -q -m slow

.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("hsgd_emu needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

clean:
	rm -rf .venv runs/out .pytest_cache .mypy_cache .ruff_cache .hypothesis
