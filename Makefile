# Kvorum. Plain `make` lists the targets.
SHELL := /bin/bash -o pipefail
GO    ?= go
SEED  ?=
SOAK  ?= 1h
PROTO_TOOL := $(GO) tool -modfile=tools/proto/go.mod
LINT_TOOL  := $(GO) tool -modfile=tools/lint/go.mod

.PHONY: help build run test kubernetes check lint vuln bench sim linear planted fuzz soak proto proto-check compat docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/kvorum and bin/kvctl
	$(GO) build -o bin/ ./cmd/...

run: build ## build, start a node, write, read, watch; the node goes on until Ctrl-C
	./examples/first-steps.sh

test: build ## all tests, those with etcd's own clients and Kubernetes' storage code included
	$(GO) test -timeout 20m ./...
	cd integration/compat && $(GO) test -timeout 20m ./...
	cd integration/kubernetes && $(GO) test -timeout 20m ./...

kubernetes: ## kube-apiserver's storage code against Kvorum
	cd integration/kubernetes && $(GO) test -timeout 20m ./...

check: lint proto-check vuln ## formatting, vet, linters, known vulnerabilities, generated code up to date

lint:
	@out=$$(gofmt -l $$(git ls-files '*.go' | grep -v '\.pb\.go$$')); test -z "$$out" || { echo "not gofmt-ed:"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags failpoints ./internal/... ./server/... ./raft/... ./mvcc/...
	$(GO) vet -tags planted ./internal/... ./server/... ./raft/... ./mvcc/... ./integration/linear
	cd integration/compat && $(GO) vet ./...
	cd integration/kubernetes && $(GO) vet ./...
	$(LINT_TOOL) golangci-lint run --timeout 10m ./...

vuln: ## known vulnerabilities in what the programs call; KVORUM_VULNDB names a copy of the database
	@GO=$(GO) ./integration/vulncheck.sh

bench: build ## Kvorum beside a real etcd, in alternating rounds (BENCH_FLAGS=...)
	cd integration/compat && $(GO) build -o ../../bin/etcdserver ./cmd/etcdserver
	$(GO) run ./integration/bench $(BENCH_FLAGS)

sim: ## the seeded simulation; SEED=n replays one run
	KVORUM_SEED=$(SEED) $(GO) test -count=1 -v -run Sim ./integration/sim ./raft

linear: build ## linearizability under faults, checked with porcupine
	KVORUM_LONG=1 $(GO) test -count=1 -v -timeout 30m ./integration/linear

fuzz: ## every fuzz target for FUZZTIME (default 10s) each
	@./integration/fuzz.sh $(or $(FUZZTIME),10s)

planted: ## bugs put in on purpose must be caught, by processes under faults and by the simulation
	KVORUM_SEEDS=2000 $(GO) test -tags planted -count=1 -v -timeout 60m -run Planted ./integration/linear ./integration/sim

soak: build ## faults and simulation for SOAK (default 1h), then planted bugs and long tests; figures at the end
	KVORUM_BIN=$(CURDIR)/bin/kvorum GO=$(GO) ./integration/soak.sh $(SOAK) $(or $(SOAK_DIR),soak)

proto: ## generate the Go code of proto/ from the .proto files
	$(PROTO_TOOL) buf generate

proto-check: ## fail when the checked-in code differs from what `make proto` makes
	@rm -rf .proto-check && mkdir .proto-check
	@$(PROTO_TOOL) buf lint proto --config buf.yaml && $(PROTO_TOOL) buf generate -o .proto-check
	@for f in $$(cd .proto-check/proto && find . -name '*.pb.go'); do cmp -s .proto-check/proto/$$f proto/$$f || { echo "proto/$$f is not what make proto makes"; rm -rf .proto-check; exit 1; }; done; rm -rf .proto-check

compat: build ## write docs/compat.md: what of etcd is there, found out from a running member
	KVORUM_UPDATE=1 $(GO) test -count=1 -run 'TestCompatPage|TestMetricsAreNamedAsInEtcd' ./server ./integration/table

docs: compat ## write docs/compat.md; check that the pages in docs/ name functions that exist
	$(GO) test -count=1 ./integration/tidy

clean: ## remove what build made
	rm -rf bin .proto-check
