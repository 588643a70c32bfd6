# The project's one door: each target builds what it needs inside the checkout, and nothing outside it.
#
#   make demo        a running server with a narrated run on loopback (ONCE=1: ends after the run)
#   make demo-rotation   keys rotate in a real OpenBao under traffic, watched by verifiers (QUICK=1: a short run)
#   make test        the tests on SQLite and PostgreSQL (ARGS="tests/keys -k ring" picks some)
#   make coverage    the branches that the tests of the three packages cover; fails below the floor in pyproject.toml
#   make acceptance  what `make test` leaves out: the commands of README and documents, typed as printed; the packages, their
#                    installation and the build stage of the image; the examples of docs/plugins.md; compose; programs that
#                    others wrote, as clients and with the printed settings, Spring and Kafka among them (apt install maven);
#                    other WSGI servers; the console in Chromium and with many clients; generated requests in numbers; the
#                    demonstration of key rotation
#   make lint types contracts    the rules that need no test run
#   make dist        what is installed elsewhere, in dist/: wheel, sdist, locked requirements, SHA256SUMS; reproducible;
#                    in dist/verifier/: wheel and sdist of authz-verifier
#   make wheel       the same, then the tests of the RFCs, the server and its documents against the wheel, in a clean environment
#   make image       the container image, its base named by digest (needs a container engine and its registry)
#   make faults      long runs of floods, overload, crashes and reloads (FAULT_SECONDS=300: each for as long), and random histories
#                    of operators and faults (FAULT_SEEDS=1-20)
#   make cases       the table of the cases that the tests prove, in docs/cases.md
#   make bench       the benchmarks, results in bench/results/ (needs wrk; ARGS=token runs one part)
#   make rooms       the picture of the rooms, docs/rooms.svg, from the import contracts and docstrings
#   make screenshots the pictures of the console in docs/, taken in Chromium (apt install chromium)
#   make lock        the lock files in requirements/ from pyproject.toml (ARGS=--upgrade: the newest releases)
#   make clean       removes everything the other targets made

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
ARGS ?=
ONCE ?=
QUICK ?=
# Half of the tests wait for a server most of their time: four processes keep two cores busy, three leave a third idle.
CORES := $(shell nproc 2>/dev/null || echo 2)
WORKERS ?= $(shell expr $(CORES) + $(CORES) / 2 + 1)

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
PACKAGES := authz_server keys plugins
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# Bytes in, bytes out, whatever the machine's language; pip touches nothing of the user's.
export LC_ALL := C.UTF-8
export PYTHONUTF8 := 1
export PIP_NO_INPUT := 1
export PIP_REQUIRE_VIRTUALENV := 1
# Without bytecode, each test process and each server that a test starts compiles everything again.
unexport PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE

.PHONY: help
help:
	@sed -n 's/^# \{0,1\}//; 2,/^$$/p' $(firstword $(MAKEFILE_LIST))

# -------------------------------------------------------------------------------------------- environments

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "$(PYTHON) was not found. Install Python 3.11 or newer, or name one: make PYTHON=python3.13" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$$($(PYTHON) --version) is too old: Python 3.11 or newer is needed, for example make PYTHON=python3.13" >&2; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version)."
	@$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); \
	  echo "The standard library's venv module does not work here. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

# Downloads are checked against the hashes in the lock file; the project itself is linked, never copied.
$(STAMPS)/run: $(BIN)/python requirements/run.txt requirements/build.txt pyproject.toml
	@echo "Installing what the server needs (requirements/run.txt)."
	@$(PIP) install --require-hashes --only-binary :all: -r requirements/run.txt -r requirements/build.txt
	@$(PIP) install --no-deps --no-index --no-build-isolation --editable .
	@mkdir -p $(@D) && touch $@

$(STAMPS)/test: $(STAMPS)/run requirements/test.txt
	@echo "Installing what the tests need (requirements/test.txt)."
	@$(PIP) install --require-hashes --only-binary :all: -r requirements/test.txt
	@mkdir -p $(@D) && touch $@

# Needs Apache's headers (apt install apache2-dev); without them, the tests under Apache are named as not run.
$(STAMPS)/apache: $(STAMPS)/test requirements/apache.txt
	@echo "Compiling the module for Apache (requirements/apache.txt)."
	@$(PIP) install --require-hashes --no-build-isolation -r requirements/apache.txt
	@mkdir -p $(@D) && touch $@

$(STAMPS)/dev: $(STAMPS)/test requirements/dev.txt
	@echo "Installing the tools (requirements/dev.txt)."
	@$(PIP) install --require-hashes --only-binary :all: -r requirements/dev.txt
	@mkdir -p $(@D) && touch $@

$(STAMPS)/bench: $(STAMPS)/test requirements/bench.txt
	@echo "Installing what the server is compared with (requirements/bench.txt)."
	@$(PIP) install --require-hashes --only-binary :all: -r requirements/bench.txt
	@mkdir -p $(@D) && touch $@

# -------------------------------------------------------------------------------------------------- targets

.PHONY: demo
demo: $(STAMPS)/run
	@$(BIN)/authz-server demo $(if $(filter-out 0 no false,$(ONCE)),--once)

.PHONY: demo-rotation
demo-rotation: $(STAMPS)/test
	@PYTHONPATH=tests $(BIN)/python -m rotation_demo $(if $(filter-out 0 no false,$(QUICK)),--quick) $(ARGS)

.PHONY: test
test: $(STAMPS)/test
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

# A run of its own: counting branches nearly doubles the time of a test.
.PHONY: coverage
coverage: $(STAMPS)/test
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --cov tests/authz_server tests/keys tests/plugins $(ARGS)

# With few generated requests in `make test`.
SEARCHES := tests/protocol/test_fuzz.py tests/protocol/test_one_standing.py \
            tests/protocol/test_openapi.py::test_generated_requests_are_answered_as_described \
            tests/authz_server/admin/test_generated_requests.py \
            tests/keys/lifecycle/test_lifecycle_properties.py tests/keys/test_ring_verify_properties.py \
            tests/authz_server/tokens/test_verification.py tests/authz_server/serving/test_http_fuzz.py

.PHONY: acceptance
acceptance: $(STAMPS)/test $(if $(shell command -v apxs),$(STAMPS)/apache)
	@FUZZ_REQUESTS=20000 OPENAPI_EXAMPLES=15 STANDING_EXAMPLES=25 ADMIN_API_EXAMPLES=5 GENERATED_INPUTS=all \
	  $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal tests/acceptance tests/foreign tests/servers $(SEARCHES) $(ARGS)

.PHONY: faults
faults: $(STAMPS)/test
	@$(BIN)/python -m pytest tests/faults $(ARGS)

.PHONY: cases
cases: $(STAMPS)/test
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --case-table docs/cases.md -o norecursedirs=".* faults" $(ARGS) tests

.PHONY: rooms
rooms: $(STAMPS)/run
	@$(BIN)/python tests/project/draw_rooms.py >docs/rooms.svg

.PHONY: screenshots
screenshots: $(STAMPS)/test
	@PYTHONPATH=tests $(BIN)/python tests/project/draw_console.py docs

.PHONY: lint
lint: $(STAMPS)/dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

.PHONY: format
format: $(STAMPS)/dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: types
types: $(STAMPS)/dev
	@$(BIN)/mypy

.PHONY: contracts
contracts: $(STAMPS)/test
	@PYTHONPATH=verifier/src $(BIN)/lint-imports

.PHONY: dist
dist: $(STAMPS)/run
	@rm -rf dist
	@tests/project/build_dist $(BIN)/python dist

.PHONY: wheel
wheel: dist
	@rm -rf build/wheel
	@tests/project/run_from_wheel $(PYTHON) dist build/wheel

.PHONY: bench
bench:
	@command -v wrk >/dev/null || { echo "The benchmarks need wrk (apt install wrk)." >&2; exit 1; }
	@$(MAKE) $(STAMPS)/bench
	@PYTHONPATH=tests:verifier/src $(BIN)/python -m bench $(ARGS)

BASE ?= python:3.13-slim

.PHONY: image
image:
	@digest=$$(docker buildx imagetools inspect $(BASE) --format '{{.Manifest.Digest}}'); \
	[[ $$digest =~ ^sha256:[0-9a-f]{64}$$ ]] || { echo "no digest for $(BASE)" >&2; exit 1; }; \
	docker build --pull --build-arg PYTHON_IMAGE=$(BASE)@$$digest \
	  --label org.opencontainers.image.base.name=$(BASE) --label org.opencontainers.image.base.digest=$$digest \
	  --tag authz-server .

# Names, versions and hashes only, for every Python that pyproject.toml admits: no address and no path of a machine.
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
           --no-header --no-annotate --no-config --no-emit-index-url --no-emit-find-links $(ARGS)

.PHONY: lock
lock: $(STAMPS)/dev
	@$(COMPILE) pyproject.toml --output-file requirements/run.txt
	@$(COMPILE) pyproject.toml --all-extras --constraint requirements/run.txt \
	  --output-file requirements/backends.txt
	@$(COMPILE) --group build --constraint requirements/run.txt --output-file requirements/build.txt
	@$(COMPILE) --group test --constraint requirements/backends.txt --constraint requirements/build.txt \
	  --output-file requirements/test.txt
	@$(COMPILE) --group apache --constraint requirements/test.txt --output-file requirements/apache.txt
	@$(COMPILE) --group dev --constraint requirements/run.txt --constraint requirements/build.txt \
	  --constraint requirements/test.txt --output-file requirements/dev.txt
	@$(COMPILE) --group bench --constraint requirements/run.txt --constraint requirements/build.txt \
	  --constraint requirements/test.txt --constraint requirements/dev.txt --output-file requirements/bench.txt

.PHONY: clean
clean:
	rm -rf $(VENV) build dist .coverage bench/node_oidc_provider/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .schemathesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
