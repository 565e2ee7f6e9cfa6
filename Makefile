# SPDX-License-Identifier: Apache-2.0

SHELL := /bin/bash
CLANG_FORMAT ?= clang-format-16
# sudo forgets where Go is by convention.
GO ?= $(or $(shell command -v go),/usr/local/go/bin/go)
export PATH := $(PATH):$(dir $(GO))
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# What the manifests name, so that they run with a local image as they are.
IMAGE ?= ghcr.io/podmeter/podmeter:$(shell sed -n 's/^appVersion: *"\(.*\)"/\1/p' deploy/helm/podmeter/Chart.yaml)
# What this machine runs; for a registry both: IMAGE_ARCHITECTURES="amd64 arm64".
IMAGE_ARCHITECTURES ?= $(shell $(GO) env GOARCH)
# Symbols and DWARF take a third of the binary; panics show their lines without them.
BUILD_FLAGS = -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$(VERSION)"
DEMO_DURATION = $(or $(DURATION),30s)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build bin/podmeter (needs Go alone)
	@CGO_ENABLED=0 $(GO) build $(BUILD_FLAGS) -o bin/podmeter ./cmd/podmeter

GEOIP_DIR ?= bin/geoip

.PHONY: geoip
geoip: build ## Fetch a free database of places to bin/geoip, for --geoip; GEOIP_DIR=folder
	@bin/podmeter geoip fetch --dir $(GEOIP_DIR)

.PHONY: image
image: $(IMAGE_ARCHITECTURES:%=bin/image/podmeter-%) ## Pack bin/podmeter-image.tar for nodes like this machine; IMAGE_ARCHITECTURES="amd64 arm64", IMAGE=name:tag (no container engine)
	@cd hack/image && GOARCH= $(GO) run . -out ../../bin/podmeter-image.tar -name $(IMAGE) -version $(VERSION) \
		-link /usr/local/bin/prometheus-geoip \
		-revision "$$(git rev-parse HEAD 2>/dev/null)" -created "$$(git log -1 --format=%ct 2>/dev/null || echo 0)" \
		$(foreach a,$(IMAGE_ARCHITECTURES),$(a)=../../bin/image/podmeter-$(a))

# Where make tools keeps what it builds, if not in ~/.cache/podmeter/tools.
ifneq ($(TOOLS),)
override TOOLS := $(abspath $(TOOLS))
export TOOLS
endif

.PHONY: tools
tools: ## Build Kubernetes and Prometheus for the tests that need them (13 minutes the first time, Go alone); TOOLS=folder
	@hack/tools.sh

.PHONY: prometheus
prometheus: ## Build the manifests' Prometheus alone, and print its folder
	@hack/tools.sh prometheus

# The name that the manifests have, whose tag is the version of the module.
PROMETHEUS_IMAGE = $(shell sed -n 's/^ *image: *\(.*prometheus:v.*\)/\1/p' deploy/kubernetes/overlays/prometheus/prometheus.yaml)

.PHONY: prometheus-image
prometheus-image: ## Pack it as bin/prometheus-image.tar, for clusters that reach no registry
	@prometheus=$$(hack/tools.sh prometheus) && cd hack/image && $(GO) run . \
		-out ../../bin/prometheus-image.tar -name $(PROMETHEUS_IMAGE) -path /bin/prometheus \
		-version $(lastword $(subst :, ,$(PROMETHEUS_IMAGE))) -source https://github.com/prometheus/prometheus -licenses Apache-2.0 \
		-limit 100000000 $(shell $(GO) env GOARCH)="$$prometheus/prometheus"

bin/image/podmeter-%: always
	@CGO_ENABLED=0 GOOS=linux GOARCH=$* $(GO) build $(BUILD_FLAGS) -o $@ ./cmd/podmeter

.PHONY: always
always:

.PHONY: demo
demo: root say-building build ## See it at work; DURATION=30s, DEMO_FLAGS="--attach netlink" (root)
	@exec bin/podmeter demo --duration $(DEMO_DURATION) $(DEMO_FLAGS)

.PHONY: say-building
say-building:
	@echo "building podmeter, which takes a minute the first time"

.PHONY: root
root:
	@[ "$$(id -u)" -eq 0 ] || { echo "network namespaces and BPF programs need root: sudo make $(MAKECMDGOALS)"; exit 1; }

.PHONY: test
test: ## Install what the tests need and run every one (the kernel's need root); SETUP=on|off, PACKAGES=pattern
	@hack/test.sh

.PHONY: check
check: ## The loop for daily work: lint, pure packages with -race, short kernel tests (root; gcc)
	@hack/check.sh

.PHONY: test-deploy
test-deploy: ## Test what makes and checks the image and the manifests, which are modules of their own
	@for module in hack/image hack/deploy hack/prometheus hack/test; do (cd $$module && $(GO) vet ./... && $(GO) test -count=1 ./...) || exit; done

.PHONY: screenshots
screenshots: VERSION = $(shell sed -n 's/^appVersion: *"\(.*\)"/\1/p' deploy/helm/podmeter/Chart.yaml)
screenshots: root build ## Take docs/page-light.png and docs/page-dark.png from the demo (chromium, root)
	@cd hack/page && $(GO) run .

.PHONY: test-vm
test-vm: ## Run the kernel tests on Debian's Linux 6.1 and 6.12 in virtual machines; BOOTS="plain nohz_full plain612 cpus128 lockdown" (no root)
	@hack/vm/run.sh $(BOOTS)

.PHONY: cluster-up
cluster-up: root ## Bring up a Kubernetes of one node in namespaces of its own; CNI=ptp|bridge, STACK=dual|ipv4, POD_IPS=250 (root)
	@CNI=$(CNI) STACK=$(STACK) POD_IPS=$(POD_IPS) hack/cluster/up.sh

.PHONY: cluster-status
cluster-status: ## Show what of it runs, and its pods
	@hack/cluster/status.sh

.PHONY: cluster-down
cluster-down: root ## End it, and leave nothing
	@hack/cluster/down.sh

.PHONY: e2e
e2e: root ## Compare podmeter with the kubelet in such a cluster, byte for byte; CNI=ptp|bridge, RUN=pattern (root)
	@CNI=$(CNI) hack/e2e/run.sh

.PHONY: e2e-long
e2e-long: root ## The same with 300 pods, outages of 2 minutes and a longer flood (root)
	@LONG=1 CNI=$(CNI) hack/e2e/run.sh

.PHONY: race
race: ## Run the tests that need no kernel under the race detector (needs gcc)
	@CGO_ENABLED=1 $(GO) test -race -count=1 ./flows/... ./metrics/... ./cmd/podmeter/agent/... ./cmd/podmeter/geoip/... ./cmd/podmeter/table ./cmd/podmeter/verify

.PHONY: stress
stress: root ## Run the long forms of floods, scans, kills, upgrades, churn and attacks (root)
	@hack/stress.sh

.PHONY: soak
soak: root ## Let an agent run under traffic, churn, restarts and kills; DURATION=10m, PLOT=file (root)
	@DURATION=$(DURATION) PLOT=$(PLOT) hack/soak.sh

.PHONY: bench
bench: ## Run the benchmarks; those of the kernel side need root
	@hack/bench.sh

.PHONY: bench-api
bench-api: root build ## Measure an agent in a cluster of 10,000 pods, and what it takes from the API server (root, etcd-server)
	@hack/scale/run.sh

.PHONY: lint
lint: ## Check formatting, vet and staticcheck
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "gofmt these: $$unformatted"; exit 1; fi
	$(GO) mod tidy -diff
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	@for module in hack/page hack/test; do (cd $$module && $(GO) mod tidy -diff && $(GO) vet ./...) || exit; done
	$(CLANG_FORMAT) --dry-run --Werror bpf/*.c bpf/*.h bpf/*/*.c

.PHONY: generate
generate: generate-deploy generate-dashboards ## Regenerate committed output (needs clang-16, llvm-16, libbpf-dev, npm)
	$(GO) generate ./...

.PHONY: generate-deploy
generate-deploy: ## Regenerate the manifests of deploy/kubernetes from the Helm chart (needs Go alone)
	cd hack/deploy && $(GO) run . -deploy ../../deploy

.PHONY: generate-dashboards
generate-dashboards: ## Regenerate the Grafana dashboards of deploy/grafana (needs npm and Node 18 or later)
	cd hack/grafana && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error && npm run --silent generate

.PHONY: check-generated
check-generated: generate ## Fail if committed output is not what the sources give
	git diff --exit-code -- bpf flows/geo deploy
