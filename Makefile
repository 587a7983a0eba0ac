# make demo: install and run the demo.   make test: install and run the tests, ruff and mypy.
# make test-slow: the tests that take minutes, which `make test` leaves out.
# These install the exact versions of constraints.txt. make test-newest: as make test, on the newest versions.
# make constraints: make the newest versions those of constraints.txt (then run make test).
PYTHON ?= python3
BIN := .venv/bin
NEWEST := .venv-newest
PROCESSES ?= 2
PIP := python -m pip install --quiet --disable-pip-version-check

CHECK_PYTHON = $(PYTHON) -c 'import sys; sys.exit("hsgd_emu needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'

define checks
	$(1)/ruff check .
	$(1)/ruff format --check .
	$(1)/mypy
	$(1)/python -m pytest -q -n $(PROCESSES) --dist loadfile
endef

.PHONY: demo test test-slow test-newest constraints newest clean

demo: .venv/installed
	$(BIN)/hsgd-emu run runs/demo.yaml --force

test: .venv/installed-dev
	$(call checks,$(BIN))

test-slow: .venv/installed-dev
	$(BIN)/python -m pytest -q -m slow

test-newest: newest
	$(call checks,$(NEWEST)/bin)

constraints: newest
	echo '# The exact versions that make demo and make test install; make constraints renews them.' > constraints.txt
	$(NEWEST)/bin/python -m pip list --disable-pip-version-check --format=freeze --exclude-editable \
		--exclude pip --exclude setuptools | sed 's/+.*//' >> constraints.txt

.venv/installed: pyproject.toml constraints.txt
	$(CHECK_PYTHON)
	$(PYTHON) -m venv .venv
	$(BIN)/$(PIP) -c constraints.txt -e .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/$(PIP) -c constraints.txt -e '.[dev]'
	touch $@

newest:
	$(CHECK_PYTHON)
	rm -rf $(NEWEST)
	$(PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/$(PIP) -e '.[dev]'

clean:
	rm -rf .venv $(NEWEST) runs/out .pytest_cache .mypy_cache .ruff_cache .hypothesis
