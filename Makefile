# Everything is built, checked and measured from here; `make` alone lists what there is.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
BIN     := bin
TOOLS   ?= $(HOME)/.cache/signalman-tools
LDFLAGS := -s -w -X github.com/signalman-ci/signalman/internal/version.Version=$(VERSION)
# What these leave out we have no use for, and each page of a binary counts as memory: gRPC's pages of traces for browsers, and the
# command line library's manual pages.
TAGS    := grpcnotrace,urfave_cli_no_docs
GOBUILD := CGO_ENABLED=0 go build -trimpath -tags $(TAGS) -ldflags '$(LDFLAGS)'
COMMANDS := supervisor worker-shell worker-compose worker-k8s
# The helper goes into containers and pods, and so into the workers for them.
HELPERS  := $(foreach a,amd64 arm64,internal/session/helperbin/built/helper-linux-$(a))
GOLANGCI := $(TOOLS)/golangci-lint-v2.15.0
BUF      := $(TOOLS)/buf-v1.75.0

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z][a-z0-9-]*:.*## /{printf "  make %-15s %s\n", $$1, $$2}' Makefile

.PHONY: helper
helper: ## build what the workers put into containers
	@$(foreach h,$(HELPERS),GOOS=linux GOARCH=$(lastword $(subst -, ,$(h))) CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o $(h) ./internal/session/helper/signalman-helper &&) true

.PHONY: build
build: helper ## build all binaries into bin/ (static, stripped)
	@mkdir -p $(BIN)
	@$(foreach c,$(COMMANDS),$(GOBUILD) -o $(BIN)/$(c) ./cmd/$(c) &&) true

.PHONY: demo
demo: build ## run the example jobs through a hub on this machine and show their logs
	$(BIN)/supervisor dev examples/*.yaml

.PHONY: test
test: build ## run all tests with the race detector
	@scripts/test-needs
	go test -race -count=1 ./...

.PHONY: test-chaos
test-chaos: ## run 200 jobs while everything goes wrong; CHAOS_SEED, CHAOS_JOBS and CHAOS_SLOTS change the run
	CHAOS_JOBS=$${CHAOS_JOBS:-200} go test -count=1 -timeout 60m -v -run '^TestChaos$$' ./test/chaos

# The cluster is a program of a module of its own: test/k8s/README.md.
CLUSTER := cd test/k8s && go run ./cmd/cluster

.PHONY: k8s-up
k8s-up: ## make sure that a Kubernetes for tests runs (root); the last line is its kubeconfig
	@$(CLUSTER) up

.PHONY: k8s-load
k8s-load: ## put the Docker engine's image IMAGE into that cluster
	@$(CLUSTER) load $(IMAGE)

.PHONY: k8s-down
k8s-down: ## end that cluster and remove all it has
	@$(CLUSTER) down

.PHONY: test-k8s
test-k8s: ## run the tests that need that cluster
	cd test/k8s && go vet ./... && go test -race -count=1 ./...
	SIGNALMAN_TEST_K8S=require go test -race -count=1 -timeout 30m \
		$$(go list -f '{{.ImportPath}} {{.TestImports}} {{.XTestImports}}' ./... | sed -n 's|\([^ ]*\) .*/internal/testcluster.*|\1|p') ./internal/testcluster

.PHONY: fuzz
fuzz: ## try 200,000 inputs on each fuzz target
	scripts/fuzz 200000x

.PHONY: bench
bench: build ## measure speed and memory; the table goes to docs/benchmarks.md
	go run ./test/bench -o docs/benchmarks.md

.PHONY: check
check: format lint generate-check deps-check test ## all that a change has to pass

.PHONY: format
format: ## check the formatting
	@test -z "$$(gofmt -l cmd internal plugins shared test)" || { gofmt -l cmd internal plugins shared test; echo "run: gofmt -w on these"; exit 1; }

.PHONY: lint
lint: $(GOLANGCI) $(BUF) ## lint the code and the protocol
	go vet ./...
	$(GOLANGCI) run ./...
	cd shared/protocol/proto && $(BUF) lint

.PHONY: generate
generate: $(BUF) ## generate code from the protocol
	cd shared/protocol/proto && $(BUF) generate && $(BUF) build --exclude-source-info -o ../../../plugins/example-python/executor.binpb

.PHONY: generate-check
generate-check: generate ## check that the generated code is up to date
	git diff --exit-code -- shared/protocol/internal plugins/example-python/executor.binpb

.PHONY: deps-check
deps-check: ## check what the supervisor links, and that go.mod is tidy
	@! go list -deps ./cmd/supervisor | grep -E '^(k8s.io|github.com/docker|github.com/aws)/|/internal/(pullauth|kube)$$' || { echo "cmd/supervisor must not link these"; exit 1; }
	go mod tidy -diff
	cd plugins/example && go mod tidy -diff && go vet ./...
	@cd plugins/example && ! go list -deps . | grep github.com/signalman-ci/signalman/internal || { echo "a plugin must need nothing of internal"; exit 1; }

.PHONY: cross
cross: ## build for every platform
	@for p in linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64; do \
		echo "build $$p"; for c in $(COMMANDS); do \
		CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} go build -o /dev/null ./cmd/$$c || exit 1; done; done
	GOOS=darwin go vet ./...
	GOOS=windows go vet ./...

.PHONY: clean
clean: ## remove what was built
	rm -rf $(BIN) $(HELPERS)

$(GOLANGCI):
	@mkdir -p $(TOOLS)
	cd tools/lint && go build -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

$(BUF):
	@mkdir -p $(TOOLS)
	cd tools/buf && go build -o $@ github.com/bufbuild/buf/cmd/buf
