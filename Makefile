# SPDX-License-Identifier: Apache-2.0

SHELL := /bin/bash
CLANG_FORMAT ?= clang-format-16

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: test
test: ## Run every test; the kernel ones need root
	@hack/test.sh

.PHONY: lint
lint: ## Check formatting, vet and staticcheck
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "gofmt these: $$unformatted"; exit 1; fi
	go vet ./...
	go tool staticcheck ./...
	$(CLANG_FORMAT) --dry-run --Werror bpf/*.c bpf/*.h

.PHONY: generate
generate: ## Regenerate committed output (needs clang-16, llvm-16, libbpf-dev)
	go generate ./...

.PHONY: check-generated
check-generated: generate ## Fail if committed output is not what the sources give
	git diff --exit-code -- bpf
