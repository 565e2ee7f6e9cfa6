# SPDX-License-Identifier: Apache-2.0

SHELL := /bin/bash
CLANG_FORMAT ?= clang-format-16
# sudo forgets where Go is by convention.
GO ?= $(or $(shell command -v go),/usr/local/go/bin/go)
export PATH := $(PATH):$(dir $(GO))
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
DEMO_DURATION = $(or $(DURATION),30s)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build bin/podmeter (needs Go alone)
	@CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags "-X main.version=$(VERSION)" -o bin/podmeter ./cmd/podmeter

.PHONY: demo
demo: root build ## See it at work; DURATION=30s, DEMO_FLAGS="--attach netlink" (root)
	@exec bin/podmeter demo --duration $(DEMO_DURATION) $(DEMO_FLAGS)

.PHONY: root
root:
	@[ "$$(id -u)" -eq 0 ] || { echo "network namespaces and BPF programs need root: sudo make $(MAKECMDGOALS)"; exit 1; }

.PHONY: test
test: ## Run every test; the kernel ones need root
	@hack/test.sh

.PHONY: test-vm
test-vm: ## Run the kernel tests on Debian's Linux 6.1 in a virtual machine; BOOTS="plain nohz_full cpus64" (no root)
	@hack/vm/run.sh $(BOOTS)

.PHONY: cluster-up
cluster-up: root ## Bring up a Kubernetes of one node in namespaces of its own; CNI=ptp|bridge, STACK=dual|ipv4 (root)
	@CNI=$(CNI) STACK=$(STACK) hack/cluster/up.sh

.PHONY: cluster-status
cluster-status: ## Show what of it runs, and its pods
	@hack/cluster/status.sh

.PHONY: cluster-down
cluster-down: root ## End it, and leave nothing
	@hack/cluster/down.sh

.PHONY: e2e
e2e: root ## Compare podmeter with the kubelet in such a cluster, byte for byte; CNI=ptp|bridge for one of them (root)
	@CNI=$(CNI) hack/e2e/run.sh

.PHONY: race
race: ## Run the tests that need no kernel under the race detector (needs gcc)
	@CGO_ENABLED=1 $(GO) test -race -count=1 ./flows/... ./metrics/... ./cmd/podmeter/agent

.PHONY: stress
stress: root ## Run the long forms of floods, scans, kills, upgrades and churn (root)
	@hack/stress.sh

.PHONY: soak
soak: root ## Let an agent run under traffic, churn, restarts and kills; DURATION=10m, PLOT=file (root)
	@DURATION=$(DURATION) PLOT=$(PLOT) hack/soak.sh

.PHONY: bench
bench: ## Run the benchmarks; those of the kernel side need root
	@hack/bench.sh

.PHONY: lint
lint: ## Check formatting, vet and staticcheck
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "gofmt these: $$unformatted"; exit 1; fi
	$(GO) mod tidy -diff
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	$(CLANG_FORMAT) --dry-run --Werror bpf/*.c bpf/*.h bpf/*/*.c

.PHONY: generate
generate: ## Regenerate committed output (needs clang-16, llvm-16, libbpf-dev)
	$(GO) generate ./...

.PHONY: check-generated
check-generated: generate ## Fail if committed output is not what the sources give
	git diff --exit-code -- bpf flows/geo
