# Everything is installed in .venv. A stamp inside it is newer than pyproject.toml and constraints.txt
# when what it stands for is installed, so nothing is installed twice.

PYTHON ?= python3.11
PYTEST_ARGS ?=
WORKERS ?= 2

BIN := .venv/bin
VENV := .venv/.made
DEMO := .venv/.installed
DEV := .venv/.installed-dev

PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt

.PHONY: install install-dev demo test test-models lint bench docs clean
.NOTPARALLEL:

install: $(DEMO)

install-dev: $(DEV)

$(VENV):
	$(PYTHON) -m venv .venv
	@touch $@

# The build backend is installed first and the package built without isolation: only then do the
# constraints hold for the backend too, in every version of pip.
$(DEMO): $(VENV) pyproject.toml constraints.txt
	$(PIP) hatchling
	$(PIP) --no-build-isolation --editable '.[plot,speech]'
	@$(BIN)/hwsim simulate rapid_4core rnnt_mlperf > /dev/null  # compiles the engine, once
	@touch $@

# torch comes first and in exactly this version: any other specification may bring the CUDA packages.
$(DEV): $(VENV) pyproject.toml constraints.txt
	$(PIP) torch==2.13.0
	$(PIP) hatchling
	$(PIP) --no-build-isolation --editable '.[plot,dev]'
	@touch $@ $(DEMO)

# The sweep ends with the path of its plot, the reproduction with the table beside the published figures, the study of
# the recognizers that ship with the points that no other beats.
demo: install
	$(BIN)/hwsim sweep rapid_4core rnnt_swb300 --precision fp16,int8,int4 --beam 1,2,4,8,16,32 \
		--lm density-ratio --out out/demo
	$(BIN)/hwsim reproduce rnnt-int4 --out out/demo
	$(BIN)/hwsim study digits --utterances 20 --out out/demo/study
	@echo; echo 'RTF over beam width and precision: out/demo/rtf_over_beam.png'
	@echo 'WER, RTF and energy of recognizers that ship: out/demo/study/study.png'

# Threads of BLAS only wait for each other on a machine of few cores.
test: install-dev
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

# Networks of a large package, which nothing else needs.
test-models: install-dev
	$(PIP) 'transformers>=5'
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m models tests/models $(PYTEST_ARGS)

lint: install-dev
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

# The page of published figures beside simulated ones; a test checks that it is current.
docs: install
	$(BIN)/hwsim reproduce all --page docs/systems.md > /dev/null

bench: install-dev
	$(BIN)/python -m benchmarks

# Keeps .venv; remove that by hand to install from nothing.
clean:
	rm -rf out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
