# make demo, make test and make lint: each sets up .venv on its first run, then does its work.
# Jittor compiles itself once, which takes a few minutes. make PYTHON=python3.12 test uses another
# Python (3.8 to 3.12); .venv is made anew when the version of Python changes.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

# Variables of the calling shell that would lead Python or pip out of .venv.
unexport PYTHONPATH PYTHONHOME PYTHONSAFEPATH PYTHONSTARTUP VIRTUAL_ENV
unexport PIP_USER PIP_TARGET PIP_PREFIX PIP_REQUIRE_VIRTUALENV

.PHONY: test demo lint doctor cuda-compile cuda-emulate venv venv-test venv-emulate venv-lint clean

# The tests of a file stay in one process, which trains what they share once.
test: venv-test
	@$(RUN) -m pytest --numprocesses auto --dist loadfile --durations=15 $(ARGS)

demo: venv
	@$(RUN) scripts/demo.py $(ARGS)

lint: venv-lint
	@$(RUN) -m ruff check --quiet --output-format concise .
	@$(RUN) -m ruff format --check --quiet .

doctor: venv
	@$(RUN) -m jseg doctor

# What can be checked of CUDA without a GPU: Jittor and all kernels through nvcc; see docs/cuda.md.
cuda-compile: venv
	@$(RUN) benchmarks/cuda_compile.py $(ARGS)

# Jittor and our networks on an emulated CUDA device, without a GPU and without nvcc.
cuda-emulate: venv-emulate
	@$(RUN) benchmarks/cuda_emulation.py $(ARGS)

venv:
	@sh scripts/make_venv.sh "$(PYTHON)" "$(VENV)" use

venv-test:
	@sh scripts/make_venv.sh "$(PYTHON)" "$(VENV)" test

venv-emulate:
	@sh scripts/make_venv.sh "$(PYTHON)" "$(VENV)" emulate

venv-lint:
	@sh scripts/make_venv.sh "$(PYTHON)" "$(VENV)" lint

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
	find jseg scripts tests benchmarks examples -name __pycache__ -type d -exec rm -rf {} +
