# `make help` lists the targets. Beyond Go, make and bash nothing has to be
# installed; a C compiler lets the tests look for data races.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Folders under cmd/: the servers, which are in the image, and what users run.
# credcache is small so that it starts quickly; what takes large libraries is in
# its helper, which belongs beside it.
PROGRAMS := renewer webhook credcache credcache-helper kubectl-pullpass
CLIENTS := credcache credcache-helper kubectl-pullpass
CLIENT_PLATFORMS := linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64

# Modules of our own code, and those that pin what the tests build from source.
MODULES := . test
PINS := $(patsubst %/go.mod,%,$(wildcard test/pins/*/go.mod))

# What `--version` says. Without git, or without a commit, the programs say what
# Go recorded.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null)
LDFLAGS := -s -w -X github.com/pullpass/pullpass/internal/version.version=$(VERSION)

# Without DWARF, which a tenth of the compiler's time goes into and nobody here
# reads: stack traces do not need it. The same for all that is compiled, so that it
# is compiled once.
export GOFLAGS := $(strip $(shell go env GOFLAGS) -gcflags=all=-dwarf=false)

GOLANGCI_LINT := CGO_ENABLED=0 GOGC=400 go tool -modfile=$(CURDIR)/test/pins/lint/go.mod golangci-lint

# The chart pulls this tag, and a release pushes it.
CHART_VERSION := $(shell sed -n 's/^version: //p' charts/pullpass/Chart.yaml)
IMAGE ?= ghcr.io/pullpass/pullpass:$(CHART_VERSION)
CONTAINER_TOOL ?= $(notdir $(firstword $(shell command -v docker podman 2>/dev/null)))

##@ Use

.PHONY: help
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Some 5 minutes on 2 cores the first time, when etcd and Kubernetes are
# compiled; under 30 seconds after that. All of it is built without cgo, so that
# what is shared is compiled once. GOGC saves a sixth of the compiler's time.
.PHONY: demo
demo: ## Show the whole thing on a real API server (KEEP=1 leaves it running)
	@echo 'compiling the demo, which takes some minutes the first time'
	@cd test && CGO_ENABLED=0 GOGC=400 go run ./tools/demo

# Without -trimpath, so that what the demo and the tests compiled serves here too.
.PHONY: picture
picture: ## Draw what the demo prints, for the README
	@mkdir -p docs/images
	@cd test && CGO_ENABLED=0 go run ./tools/demo 2>/dev/null | CGO_ENABLED=0 go run ./tools/picture > ../docs/images/demo.svg

.PHONY: build
build: ## Build the programs, static, into bin/
	CGO_ENABLED=0 go build -buildvcs=false -ldflags '$(LDFLAGS)' -o bin/ $(PROGRAMS:%=./cmd/%)

.PHONY: build-clients
build-clients: ## Build credcache and the kubectl plugin for Linux, macOS and Windows, into bin/OS-ARCH/
	@for platform in $(CLIENT_PLATFORMS); do \
		os=$${platform%/*}; arch=$${platform#*/}; \
		echo "building $(CLIENTS) for $$platform"; \
		GOOS=$$os GOARCH=$$arch CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' \
			-o "bin/$$os-$$arch/" $(CLIENTS:%=./cmd/%); \
	done

.PHONY: image
image: ## Build the container image IMAGE, with docker or podman
	@if [ -z "$(CONTAINER_TOOL)" ]; then \
		echo 'make image needs docker or podman; neither is installed' >&2; exit 1; fi
	@if ! "$(CONTAINER_TOOL)" info >/dev/null 2>&1; then \
		echo 'make image: $(CONTAINER_TOOL) is installed, but `$(CONTAINER_TOOL) info` fails: is its daemon running?' >&2; exit 1; fi
	"$(CONTAINER_TOOL)" build --build-arg VERSION='$(VERSION)' --build-arg REVISION="$$(git rev-parse HEAD)" --tag '$(IMAGE)' .

# Under 30 minutes on 2 cores, and on a quiet machine only. What it measured is in
# test-results/bench; BENCHFLAGS='-only webhook' measures one section again.
.PHONY: bench
bench: ## Measure everything against floors, and write docs/performance.md
	@cd test && CGO_ENABLED=0 go run ./tools/bench -docs ../docs $(BENCHFLAGS)

.PHONY: bench-quick
bench-quick: ## Measure the essentials in under 5 minutes, and print them
	@cd test && CGO_ENABLED=0 go run ./tools/bench -quick -out ../test-results/bench-quick $(BENCHFLAGS)

# The report of one run is in docs/reference/soak.md. With SEED the same faults are
# drawn again, in the same order; what they meet depends on the machine.
DURATION ?= 20m

.PHONY: soak
soak: ## Run all of it for DURATION while faults are drawn from SEED; REPORT is a file; takes root on Linux
	@echo 'compiling the soak, which takes some minutes the first time'
	@cd test && CGO_ENABLED=0 go run ./tools/soak -duration '$(DURATION)' $(SEED:%=-seed %) $(if $(REPORT),-report '$(abspath $(REPORT))')

##@ Check

# On 2 cores some 8 minutes, and 18 the first time, when Kubernetes is compiled.
# TESTFLAGS are flags of go test, such as TESTFLAGS='-run TestRotation'. With -short
# the longest tests try a part, the same one each time, of what they try in test-long.
.PHONY: test
test: ## Run every test; with CI=true a skipped test is a failure
	@test/tools/run-tests unit api node -- -short $(TESTFLAGS)

.PHONY: test-unit
test-unit: ## Run the tests that need no cluster
	@test/tools/run-tests unit -- -short $(TESTFLAGS)

.PHONY: test-api
test-api: ## Run the tests on a real API server
	@test/tools/run-tests api -- -short $(TESTFLAGS)

.PHONY: test-node
test-node: ## Run the tests in a cluster with a node, which takes root on Linux
	@test/tools/run-tests node -- -short $(TESTFLAGS)

.PHONY: test-long
test-long: ## Run every test in full: each image, attacks of 40 s, 10,000 namespaces
	@test/tools/run-tests unit api node -- $(TESTFLAGS)

# Not a part of make test, since it compiles the clients for every platform.
.PHONY: test-release
test-release: ## Make a snapshot of a release and install it, which takes root on Linux
	@test/tools/run-tests release -- $(TESTFLAGS)

# For FUZZTIME each. Inputs that find something new are not minimised: of a review
# of 6 KB that would take all of the time. When the time is up, Go before 1.27 sometimes
# fails with "context deadline exceeded", having found nothing: https://go.dev/issue/75804.
FUZZTIME ?= 20s

.PHONY: fuzz
fuzz: ## Run each fuzz test for FUZZTIME
	@said=$$(mktemp); for m in $(MODULES); do \
		for file in $$(cd $$m && git grep -l '^func Fuzz' -- '*_test.go' ':!:test' 2>/dev/null || true); do \
			for name in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9]*\)(.*/\1/p' $$m/$$file); do \
				echo "fuzz: $$name in $$m/$$(dirname $$file) for $(FUZZTIME)"; \
				(cd $$m && go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1x "./$$(dirname $$file)") 2>&1 | tee "$$said" || \
					{ grep -q '^    context deadline exceeded$$' "$$said" && ! grep -q 'Failing input' "$$said"; } || failed=1; \
			done; \
		done; \
	done; rm "$$said"; exit $${failed:-0}

# Each version takes some 6 minutes on 2 cores to compile the first time. With
# COMPAT=1.30 one version only.
.PHONY: test-compat
test-compat: ## Test on all supported Kubernetes versions; a row of docs/compatibility.md each
	@test/tools/compat $(COMPAT)

# On 2 cores some 3 minutes the first time, most of them to compile golangci-lint.
# `make -k verify` goes on after a failure.
.PHONY: verify
verify: verify-format verify-lint verify-tidy verify-docs verify-chart verify-release verify-scripts verify-paths ## Check all that needs no test

.PHONY: verify-format
verify-format: ## Code is formatted
	@echo 'verify-format: golangci-lint fmt, which takes some minutes to compile the first time'
	@for m in $(MODULES); do (cd $$m && $(GOLANGCI_LINT) fmt --diff ./...) || failed=1; done; exit $${failed:-0}

.PHONY: verify-lint
verify-lint: ## go vet and golangci-lint find nothing
	@for m in $(MODULES); do \
		echo "verify-lint: go vet and golangci-lint in $$m"; \
		(cd $$m && CGO_ENABLED=0 go vet ./...) || failed=1; \
		(cd $$m && $(GOLANGCI_LINT) run --allow-parallel-runners ./...) || failed=1; \
	done; exit $${failed:-0}

# The modules of test/pins are left out: -mod=readonly finds what they lack, and
# to find what they have too much tidy downloads all that their tests need.
.PHONY: verify-tidy
verify-tidy: ## go.mod and go.sum of every module are tidy
	@for m in $(MODULES); do \
		echo "verify-tidy: go mod tidy in $$m"; \
		(cd $$m && go mod tidy -diff) || failed=1; \
	done; exit $${failed:-0}
	@echo 'verify-tidy: the product and the tests require the same versions'
	@product=$$(go list -deps -f '{{with .Module}}{{if .Version}}{{.Path}} {{.Version}}{{end}}{{end}}' ./... | sort -u); \
	tests=$$(cd test && go list -m -f '{{.Path}} {{with .Replace}}{{.Version}}{{else}}{{.Version}}{{end}}' all | sort); \
	if comm -23 <(echo "$$product") <(echo "$$tests") | grep .; then \
		echo 'verify-tidy: test/go.mod requires other versions of these, so all that needs them is compiled twice' >&2; exit 1; fi

.PHONY: verify-docs
verify-docs: build ## Generated documentation and the chart's patterns are up to date
	@echo 'verify-docs'
	@cd test && go run ./tools/docs -check

.PHONY: verify-chart
verify-chart: ## The chart passes helm lint --strict, with each of its example values
	@helm=$$(cd test && go run ./tools/build helm); \
	for values in charts/pullpass/values.yaml charts/pullpass/ci/*.yaml; do \
		echo "verify-chart: helm lint --strict with $$values"; \
		"$$helm" lint --strict --quiet --values "$$values" charts/pullpass || failed=1; \
	done; exit $${failed:-0}

.PHONY: verify-release
verify-release: ## The chart's versions agree; goreleaser and actionlint find nothing
	@echo 'verify-release: the versions of the chart, goreleaser check, actionlint'
	@cd test && CGO_ENABLED=0 go run ./tools/release -check
	@goreleaser=$$(cd test && go run ./tools/build goreleaser); \
	PULLPASS_VERSION=0.0.0 "$$goreleaser" check --quiet
	@actionlint=$$(cd test && go run ./tools/build actionlint); "$$actionlint"

.PHONY: verify-scripts
verify-scripts: ## Shell scripts parse, and shellcheck (where installed) finds nothing
	@for s in .ci/run test/tools/run-tests test/tools/compat test/harness/cluster/run.sh; do \
		echo "verify-scripts: $$s"; \
		bash -n $$s || failed=1; \
		if command -v shellcheck >/dev/null; then shellcheck $$s || failed=1; fi; \
	done; exit $${failed:-0}

# Folders of one developer's machine have no place in the tree.
.PHONY: verify-paths
verify-paths: ## No file names a folder of somebody's machine
	@echo 'verify-paths: git grep'
	@git grep --untracked -nIE '(^|[^[:alnum:]_.$$}/-])/(root|home|Users|work)/' && \
		{ echo 'verify-paths: these lines name a folder of one machine' >&2; exit 1; } || \
		[ $$? -eq 1 ] # nothing found; any other status is git's trouble

.PHONY: update
update: build ## Format the code, tidy the modules, write generated documentation
	@for m in $(MODULES); do (cd $$m && $(GOLANGCI_LINT) fmt ./...); done
	@for m in $(MODULES) $(PINS); do (cd $$m && go mod tidy); done
	@cd test && go run ./tools/docs

##@ Release

.PHONY: release-snapshot
release-snapshot: ## Make everything that a release publishes, into dist/
	@cd test && CGO_ENABLED=0 go run ./tools/release -snapshot

# The release workflow runs it, with the rights to publish.
.PHONY: release
release: ## Publish the tag that is checked out
	@cd test && CGO_ENABLED=0 go run ./tools/release -publish

##@ Clean

.PHONY: clean
clean: ## Remove what was built in the tree; the cache stays
	rm -rf bin dist test-results
