# Each target sets up what it needs: `make demo` and `make test` work in an empty clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test check clean

demo: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" bash recipes/demo.sh

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

# torch first and by its exact version: a range lets some machines fetch gigabytes of CUDA packages they cannot use.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "onereason needs Python 3.11 or newer; set PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --upgrade pip
	$(BIN)/pip install -q -c constraints.txt torch
	DS_BUILD_OPS=0 $(BIN)/pip install -q -c constraints.txt -e ".[train,text,deepspeed,ray,dev]"
	touch $@

clean:
	rm -rf $(VENV) runs build *.egg-info
