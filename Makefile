# make test, make demo: each sets up .venv on its first run (a few minutes: Jittor compiles itself), then does its work.
# make PYTHON=python3.12 test: with another Python (3.8 to 3.12); .venv is made anew when its version differs.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

# What a shell may carry over from elsewhere and would lead Python or pip out of .venv.
unexport PYTHONPATH PYTHONHOME PYTHONSAFEPATH PYTHONSTARTUP VIRTUAL_ENV PIP_USER PIP_TARGET PIP_PREFIX PIP_REQUIRE_VIRTUALENV

.PHONY: test demo doctor cuda-compile venv clean

test: venv
	@$(RUN) -m pytest --durations=15 $(ARGS)

demo: venv
	@$(RUN) scripts/demo.py $(ARGS)

doctor: venv
	@$(RUN) -m jseg doctor

# What can be checked of CUDA without a GPU: Jittor and all kernels through nvcc; see docs/cuda.md.
cuda-compile: venv
	@$(RUN) benchmarks/cuda_compile.py $(ARGS)

venv:
	@sh scripts/make_venv.sh "$(PYTHON)" "$(VENV)"

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache
	find jseg scripts tests benchmarks -name __pycache__ -type d -exec rm -rf {} +
