# Everything happens in virtual environments inside this folder; `make clean` leaves nothing behind.
#
#   make demo       a real small model answers inside a notebook, streamed to this terminal
#   make lab        JupyterLab on the quickstart notebook
#   make test       all tests; what CI runs
#   make test-fast  the fast ones, under two minutes
#   make envs       the engines that the tests run (vLLM, transformers, …), in .cache/envs
#   make lint       ruff, mypy, import-linter

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PY := .venv/bin/python
PIP_FLAGS := -qq --disable-pip-version-check --constraint constraints.txt
comma := ,
say = @printf '\033[1m%s\033[0m\n' "$(1)"

# A second kernel environment per ipykernel series and Python version that the tests run on.
PYTHON312 := $(firstword $(shell python3.12 -c 'import sys; print(sys.executable)' 2>/dev/null) \
               $(wildcard $(HOME)/.pyenv/versions/3.12*/bin/python3.12))
KERNELS := .venv-ipykernel6 $(if $(PYTHON312),.venv-py312)

.DEFAULT_GOAL := help
.PHONY: help demo lab test test-fast lint kernels browser envs clean

help:
	@sed -n '3,8s/^# *//p' Makefile

.venv/.base: pyproject.toml constraints.txt
	$(call say,Installing lazynb and llama.cpp into .venv (about a minute the first time) …)
	@test -x $(PY) || $(PYTHON) -m venv .venv
	@$(PY) -m pip install $(PIP_FLAGS) --upgrade pip
	@$(PY) -m pip install $(PIP_FLAGS) --editable '.[llamacpp,lab,test]'
	@touch $@

.venv/.lint: .venv/.base
	$(call say,Installing ruff$(comma) mypy and import-linter …)
	@$(PY) -m pip install $(PIP_FLAGS) --editable '.[lint]'
	@touch $@

.venv-ipykernel6/.installed: pyproject.toml constraints.txt
	$(call say,Installing a kernel environment with ipykernel 6.31 …)
	@test -x .venv-ipykernel6/bin/python || $(PYTHON) -m venv .venv-ipykernel6
	@.venv-ipykernel6/bin/python -m pip install -qq --disable-pip-version-check --upgrade 'pip>=25.1'
	@grep -v '^ipykernel==' constraints.txt > .venv-ipykernel6/constraints.txt
	@.venv-ipykernel6/bin/python -m pip install -qq --disable-pip-version-check \
	    --constraint .venv-ipykernel6/constraints.txt --editable '.[llamacpp]' 'ipykernel==6.31.*'
	@touch $@

.venv-py312/.installed: pyproject.toml constraints.txt
	$(call say,Installing a kernel environment with Python 3.12 …)
	@test -x .venv-py312/bin/python || $(PYTHON312) -m venv .venv-py312
	@.venv-py312/bin/python -m pip install $(PIP_FLAGS) --upgrade pip
	@.venv-py312/bin/python -m pip install $(PIP_FLAGS) --editable '.[llamacpp]'
	@touch $@

kernels: $(KERNELS:%=%/.installed)

# Debian's Chromium; any Chromium or Chrome on the PATH, or one that LAZYNB_CHROMIUM names, will do.
browser:
	@if ! $(PY) -m tests.browser.find >/dev/null 2>&1; then \
	  printf '\033[1m%s\033[0m\n' 'Installing Chromium for the browser tests …'; \
	  sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	  $$sudo apt-get update -qq && $$sudo apt-get install -y -qq chromium >/dev/null; fi

# The environments of the real engines: 6 GB, about four minutes the first time.
envs: .venv/.base
	$(call say,Installing the engines that the tests run into .cache/envs (6 GB the first time) …)
	@LAZYLLM_ENVS_DIR="$(CURDIR)/.cache/envs" $(PY) -m lazynb install embedding vllm || \
	  printf '\033[1m%s\033[0m\n' 'Not all of them could be installed: pytest lists the tests that it skips for it.'

demo: .venv/.base
	$(call say,Running notebooks/quickstart.ipynb against SmolLM2-135M (98 MB the first time) …)
	@$(PY) notebooks/run.py notebooks/quickstart.ipynb
	$(call say,To open it in JupyterLab: make lab)

lab: .venv/.base
	@cd notebooks && ../.venv/bin/jupyter lab quickstart.ipynb

lint: .venv/.lint
	$(call say,ruff$(comma) mypy$(comma) import-linter …)
	@.venv/bin/ruff check . && .venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-cache

test: .venv/.base lint kernels browser envs
	$(call say,All tests: units$(comma) real kernels$(comma) the real engine$(comma) a real JupyterLab$(comma) measurements …)
	@LAZYNB_TEST_PYTHONS="$(CURDIR)/$(PY)$$(printf ':$(CURDIR)/%s/bin/python' $(KERNELS))" $(PY) -m pytest

test-fast: .venv/.base
	@$(PY) -m pytest -m 'not slow and not bench' tests/unit

clean:
	rm -rf .venv .venv-* .cache test-results .mypy_cache .pytest_cache .ruff_cache .hypothesis
