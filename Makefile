# `make help` lists the targets.
#
# `make run` and `make test` install what is missing where they can (as root on
# Debian or Ubuntu) and say what is missing where they cannot.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

GO := $(CURDIR)/scripts/go.sh
TOOL := $(GO) tool -modfile=$(CURDIR)/tools/go.mod
BIN := bin/rag-processor
DATA ?= data

# The model files are kept with the data, and the tests use the same ones.
export RAG_MODELS_DIR ?= $(abspath $(DATA))/models

ASK ?= Where should a program keep temporary files that survive a reboot?
FUZZTIME ?= 20s
MINUTES ?= 2

# The default, and the two that the tests compare with their references.
TEST_MODELS := bge-small-en-v1.5 bge-small-en-v1.5-int8 all-minilm-l6-v2-int8

.PHONY: help
help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: build models ## Ingest examples/, answer a question over them, then serve the web page on loopback; ONCE=1 exits after the answer
	@exec $(BIN) serve --data-dir $(DATA) --ingest examples --ask "$(ASK)" $(if $(ONCE),--once)

.PHONY: build
build: ## Build bin/rag-processor
	@CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w" -o $(BIN) ./cmd/rag-processor

.PHONY: models
models: build ## Fetch the embedding model and verify it
	@scripts/models.sh $(BIN) --data-dir $(DATA)

.PHONY: test
test: build ## Run every test with the race detector, on a throwaway PostgreSQL, with the models and a browser
	@scripts/install.sh gcc git chromium spin soffice
	@scripts/models.sh $(BIN) --data-dir $(DATA) $(TEST_MODELS)
	@scripts/postgres-install.sh
	@rm -rf .cache/traces && mkdir -p .cache/traces
	@traces=$$(mktemp -d $(CURDIR)/.cache/traces/XXXXXX) && \
		CGO_ENABLED=1 RAG_REQUIRE_DB=1 RAG_REQUIRE_MODELS=1 RAG_REQUIRE_BROWSER=1 RAG_REQUIRE_SPIN=1 RAG_REQUIRE_OFFICE=1 RAG_TRACES=$$traces \
		scripts/postgres-test.sh run $(GO) test -race -timeout 20m $(TESTFLAGS) ./... && \
		{ [ -n "$(TESTFLAGS)" ] || RAG_JUDGE=$$traces $(GO) test -count=1 -v -run '^TestLogsOfTheTests$$' ./proof/model; }

.PHONY: check
check: ## Check format, vet, lints, known vulnerabilities, modules and generated files
	@scripts/check.sh

.PHONY: generate
generate: ## Write the files that are generated from the code
	@$(GO) test -count=1 -run '^TestGenerated$$' ./lifecycle ./proof/model -update
	@RAG_UPDATE=1 $(GO) test -count=1 -run '^TestConfigPage$$' ./cmd/rag-processor

.PHONY: fuzz
fuzz: ## Fuzz each parser and decoder for FUZZTIME (20s)
	@scripts/fuzz.sh $(FUZZTIME)

.PHONY: mutants
mutants: ## Take out one fence of the program at a time and require that a test notices
	@scripts/postgres-install.sh
	@scripts/postgres-test.sh run $(GO) run ./proof/mutants

.PHONY: model
model: ## Check the specification of a job's life with spin, and that it fails without each of its fences
	@scripts/install.sh spin gcc
	@$(GO) run ./proof/model

.PHONY: chaos
chaos: ## Kill, stop, cut off and fill up a whole installation for MINUTES (2); fail if anything shown was untrue
	@scripts/install.sh ip
	@scripts/postgres-install.sh
	@$(GO) run ./proof/chaos -minutes $(MINUTES) $(if $(SEED),-seed $(SEED))

.PHONY: chaos-sqlite
chaos-sqlite: ## The same for MINUTES on one machine with SQLite
	@$(GO) run ./proof/chaos -sqlite -minutes $(MINUTES) $(if $(SEED),-seed $(SEED))

.PHONY: powercut
powercut: ## Let the power go at random moments of SQLite's writes for MINUTES, and open what is left
	@$(GO) run ./proof/powercut -for $(MINUTES)m $(if $(SEED),-seed $(SEED))

.PHONY: verify
verify: ## Prove: every order of events in small worlds, random long ones, the specification, and that a missing fence is noticed
	@scripts/verify.sh $(PARTS)

.PHONY: bench
bench: build models ## Measure, beside others, and write docs/benchmarks.md
	@scripts/postgres-install.sh
	@cd bench && $(CURDIR)/scripts/postgres-test.sh run $(GO) run . -out ../docs/benchmarks.md

.PHONY: eval
eval: ## Measure how well files are read, on the corpora in CORPORA, and write docs/quality.md
	@$(GO) run ./eval -corpora $(or $(CORPORA),$(error CORPORA names no folder: docs/quality.md says what is in one)) -out docs/quality.md

.PHONY: clean
clean: ## Remove what was built, and the data of `make run`
	@rm -rf bin .cache data
