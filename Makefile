# `make help` says what there is. Everything runs in .venv, which is made here, once, and made anew
# when the locks change.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input

.DEFAULT_GOAL := help
.PHONY: help run test check bench cluster docs manifests lock images clean python environment environment-run environment-dev

help:
	@echo "make run                       demonstration: download a small model from a Hub in this machine"
	@echo "make run URI=hf://… [DIR=…]    download a model"
	@echo "make test                      check, then run every test"
	@echo "make check                     ruff, mypy and import-linter"
	@echo "make bench                     measure"
	@echo "make cluster                   a Kubernetes of one node to play with, and the operator in it,"
	@echo "                               until Ctrl-C"
	@echo "make docs                      write docs/reference.md from the code"
	@echo "make manifests                 write deploy/crds.yaml and operator.yaml from the Helm chart"
	@echo "make lock [UPGRADE=1]          pin what pyproject.toml asks for (UPGRADE: the newest of it)"
	@echo "make images [TAG=…] [CA=…]     build the container images (CA: certificates for pip, where a"
	@echo "                               proxy inspects connections; else what SSL_CERT_FILE names)"
	@echo "make clean                     remove .venv, caches and builds; downloaded models stay"
	@echo "PYTHON=python3.13              with any of them: the Python to use, 3.11 or newer"

run: environment-run
ifdef URI
	@$(BIN)/python -m aim_downloader "$(URI)" $(if $(DIR),"$(DIR)")
else
	@$(BIN)/python -m aim_downloader.demo -- $(BIN)/python -m aim_downloader \
		hf://demo/tiny-llama "$(or $(DIR),./models/tiny-llama)"
endif

# The servers and the image are built while the code is checked; a failed check or Ctrl-C ends that.
test: environment
	@tests/setup-system
	@trap 'kill $$servers $$images 2>/dev/null' EXIT; trap 'exit 130' INT; trap 'exit 143' TERM; \
	tests/setup-servers & servers=$$!; \
	$(BIN)/python -m tests.images & images=$$!; \
	$(MAKE) --no-print-directory check && wait $$servers && wait $$images
	@$(BIN)/python -m pytest -q -n auto --maxprocesses 8 --dist worksteal

check: environment-dev
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy --no-error-summary
	@told=$$($(BIN)/lint-imports --no-logo 2>&1) || { echo "$$told"; exit 1; }
	@echo "ruff, mypy and import-linter have no complaints."

bench: environment-dev
	@$(BIN)/python -m bench

# It prints how to reach it; `exec`, so that Ctrl-C is its own affair.
cluster: environment-dev
	@tests/setup-system
	@tests/setup-servers
	@exec $(BIN)/python -m tests.cluster

docs: environment-run
	@$(BIN)/python -m docs.reference

manifests: environment-dev
	@tests/setup-servers
	@$(BIN)/python -m deploy.manifests

# The dev lock comes first, so that all pin the same versions.
lock: environment
	@[ -x $(BIN)/uv ] || $(PIP) install uv
	@$(call compile,pyproject.toml --group dev --output-file requirements-dev.txt)
	@$(call compile,pyproject.toml --constraints requirements-dev.txt --output-file requirements.txt)
	@$(call compile,--group operator --constraints requirements-dev.txt \
		--output-file requirements-operator.txt)

compile = $(BIN)/uv pip compile $(1) --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-emit-find-links --annotation-style line --quiet \
	--custom-compile-command "make lock" $(if $(UPGRADE),--upgrade)

images:
	@$(call stop_if,$(shell $(builder_trouble)))
	@for file in Dockerfile.*; do \
		echo "Building aim-$${file#*.}:$(TAG) with $(BUILDER) ..."; \
		$(build_$(BUILDER)) --file "$$file" --tag "aim-$${file#*.}:$(TAG)" $(build_flags) . || { \
			$(base_trouble); exit 1; }; \
	done

clean:
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis \
		.benchmarks .coverage htmlcov build dist *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the environment ------------------------------------------------------------------------------
# What .venv holds is known by copies of the locks in it (and of what describes the project). A copy
# that differs from its lock: begin with an empty .venv. One that is missing: install. So the tools
# of `make test` are added to what `make run` has installed.

HOLDS := $(VENV)/holds

python:
	@$(call stop_if,$(shell $(python_trouble)))

environment: python
	@$(venv_is_right) || '$(PYTHON)' -m venv --clear $(VENV)

environment-run: environment
	@cmp -s requirements.txt $(HOLDS)/requirements.txt || { \
		echo "Installing the libraries into $(VENV) (once) ..." && \
		$(PIP) install --require-hashes -r requirements.txt && \
		mkdir -p $(HOLDS) && cp requirements.txt $(HOLDS); }

environment-dev: environment
	@cmp -s requirements-dev.txt $(HOLDS)/requirements-dev.txt || { \
		echo "Installing the libraries and the tools for development into $(VENV) (once) ..." && \
		$(PIP) install --require-hashes -r requirements-dev.txt && \
		mkdir -p $(HOLDS) && cp requirements.txt requirements-dev.txt $(HOLDS); }
	@{ cmp -s pyproject.toml $(HOLDS)/pyproject.toml && \
		cmp -s aim_downloader/_version.py $(HOLDS)/_version.py; } || { \
		$(PIP) install --no-deps --no-build-isolation --editable . && \
		cp pyproject.toml aim_downloader/_version.py $(HOLDS); }

stop_if = $(if $(1),$(error $(1)))

# Shell conditions. A PYTHON that was named must be the one that .venv was made by.
which_python := import sys; print(sys.version, sys.base_prefix)
venv_works = $(BIN)/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
venv_is_of_python = { [ '$(origin PYTHON)' = file ] || \
	[ "$$($(BIN)/python -c '$(which_python)')" = "$$('$(PYTHON)' -c '$(which_python)')" ]; }
venv_holds_no_other = { [ ! -e $(HOLDS)/$(1) ] || cmp -s $(1) $(HOLDS)/$(1); }
venv_is_right = { $(venv_works) && $(venv_is_of_python) && \
	$(call venv_holds_no_other,requirements.txt) && \
	$(call venv_holds_no_other,requirements-dev.txt); }

# Says in one line why no environment can be made; says nothing when all is well.
name_another := or name another one with PYTHON=/path/to/python3
python_trouble = \
	if $(venv_is_right); then exit; fi; \
	if ! '$(PYTHON)' -c '' 2>/dev/null; then \
		echo 'Python 3.11 or newer is needed, and $(PYTHON) cannot be run: install it' \
			'(Debian, Ubuntu: apt-get install python3 python3-venv), $(name_another)'; exit; fi; \
	if ! '$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		echo 'Python 3.11 or newer is needed, and $(PYTHON) is' \
			"$$('$(PYTHON)' --version 2>&1): install a newer one, $(name_another)"; exit; fi; \
	if ! '$(PYTHON)' -c 'import ensurepip, venv' 2>/dev/null; then \
		echo '$(PYTHON) cannot make an environment, as its module venv or ensurepip is missing: install it' \
			'(Debian, Ubuntu: apt-get install python3-venv), $(name_another)'; exit; fi

# --- images ---------------------------------------------------------------------------------------
# BUILDER=buildah or BUILDER=docker decides where both are there. A build with SOURCE_DATE_EPOCH
# bears that time everywhere.

TAG ?= $(version)
CA ?= $(SSL_CERT_FILE)
BUILDER ?= $(shell if docker info >/dev/null 2>&1; then echo docker; \
	elif command -v buildah >/dev/null; then echo buildah; fi)

version = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' aim_downloader/_version.py)
comma := ,
label = $(if $(2),--label 'org.opencontainers.image.$(1)=$(2)')

build_docker = docker build $(if $(SOURCE_DATE_EPOCH),--build-arg SOURCE_DATE_EPOCH)
build_buildah = buildah build --pull=false \
	$(if $(SOURCE_DATE_EPOCH),--timestamp $(SOURCE_DATE_EPOCH),--layers)
build_flags = $(if $(CA),--secret 'id=ca$(comma)src=$(CA)') \
	$(call label,version,$(version)) \
	$(call label,revision,$(shell git rev-parse HEAD 2>/dev/null)) \
	$(call label,created,$(shell git log -1 --format=%cI 2>/dev/null)) \
	$(call label,source,$(shell git config remote.origin.url | \
		sed -nE 's,^https://([^/@]*@)?,https://,p'))

# Says in one line why no image can be built; says nothing when all is well.
builder_trouble = \
	case '$(BUILDER)' in \
		docker) docker info >/dev/null 2>&1 || \
			echo 'docker cannot build images here: it is not installed, or its daemon does not answer';; \
		buildah) command -v buildah >/dev/null || \
			echo 'buildah cannot build images here: it is not installed';; \
		'') echo 'images are built by docker, whose daemon must run, or by buildah: neither is here';; \
		*) echo 'images are built by docker or by buildah, and not by $(BUILDER)';; esac; \
	if [ -n '$(CA)' ] && [ ! -r '$(CA)' ]; then \
		echo 'the certificates $(CA) cannot be read: name a file in PEM form with CA=…'; fi

# Says of a build that has failed that it lacks its base, where that is so.
has_docker = docker image inspect
has_buildah = buildah inspect --type image
base_trouble = base=$$(sed -n '/^FROM /{s/^FROM \([^ ]*\).*/\1/p;q;}' "$$file"); \
	$(has_$(BUILDER)) "$$base" >/dev/null 2>&1 || \
	echo "The base $$base is not here, and its registry did not give it. (For the tests" \
		"\`python -m tests.images\` makes one from Debian's packages.)" >&2
