# SPDX-License-Identifier: Apache-2.0

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN      := bin
DAEMON   := $(BIN)/containerd-strata-grpc
CLI      := $(BIN)/strata
TOOLS    := $(CURDIR)/.cache/bin
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  := -s -w -X main.version=$(VERSION)
FUZZTIME ?= 10s
# The small corpus that bench makes where CORPUS names no other, and what of it fits into 5 minutes.
BENCHCORPUS := .cache/bench-corpus
BENCHSMALL  := -n 3 -run '/gz/|/off$$|^whole-seq/'
# What crash does on each file system, and the first of its seeds.
CUTS     ?= 100
KILLS    ?= 250
FILES    ?= 5000
SEED     := $(or $(SEED),$(shell date +%s))
# How long soak goes on.
MINUTES  ?= 10
# Unit tests are all packages but the end-to-end tests; narrow with PKG=./metadata/...
PKG      ?= $(shell go list ./... | grep -v '/integration')
# RUN=REGEXP narrows both kinds of tests.
RUN      ?= .
# Stamping the revision fails where git refuses: a checkout of someone else's, or no commit yet.
STAMP    := $(shell git rev-parse --verify -q HEAD >/dev/null 2>&1 && echo auto || echo false)
export GOFLAGS ?= -buildvcs=false
# The administrators' commands (mkfs, iptables) that tests call, also for a plain user's PATH.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

# step NAME,COMMAND: says what runs, and on failure which step it was.
define step
@echo "==> $(1)"; { $(2); } || { status=$$?; echo "==> FAILED: $(1)" >&2; exit $$status; }
endef

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{ printf "  %-16s %s\n", $$1, $$2 }'

.PHONY: build
build: ## bin/containerd-strata-grpc and bin/strata
	$(call step,build,CGO_ENABLED=0 go build -trimpath -buildvcs=$(STAMP) -ldflags "$(LDFLAGS)" -o $(BIN)/ ./cmd/containerd-strata-grpc ./cmd/strata)

.PHONY: man
man: build ## manual pages in bin/man
	$(call step,man,$(CLI) docs man $(BIN)/man)

.PHONY: demo
demo: ## run a container on Strata in a temporary directory, as root
	$(call step,demo,hack/demo.sh)

.PHONY: test
test: test-deps unit integration ## everything, as root: unit tests with the race detector, then end to end

.PHONY: test-deps
test-deps: ## install what the tests need
	$(call step,test-deps,hack/deps.sh test)

.PHONY: unit
unit: ## unit tests with the race detector
	$(call step,unit,go test -race -timeout 10m -run '$(RUN)' $(PKG))

.PHONY: integration
integration: ## real containerd, runc and CRI on Strata, as root
	$(call step,integration,go test -race -timeout 10m -count 1 -run '$(RUN)' ./integration/...)

.PHONY: lint
lint: lint-deps ## golangci-lint and staticcheck over the Go code
	$(call step,lint,$(TOOLS)/golangci-lint config verify && $(TOOLS)/golangci-lint run --timeout 10m ./... && $(TOOLS)/staticcheck ./...)

.PHONY: lint-deps
lint-deps: ## install the linters
	$(call step,lint-deps,hack/deps.sh lint)

.PHONY: fmt
fmt: lint-deps ## format the Go code
	$(call step,fmt,$(TOOLS)/golangci-lint fmt ./...)

.PHONY: generate
generate: build ## rewrite the checked-in generated files
	$(call step,generate,$(DAEMON) config default > config/config.toml && $(CLI) docs markdown > docs/cli.md)

.PHONY: check-generated
check-generated: build ## are the checked-in generated files current?
	$(call step,check-generated,diff -u config/config.toml <($(DAEMON) config default) || { echo "config/config.toml is not what the daemon prints: run make generate"; false; })
	$(call step,check-generated,diff -u docs/cli.md <($(CLI) docs markdown) || { echo "docs/cli.md is not what strata prints: run make generate"; false; })

.PHONY: fixture
fixture: ## a root as this version writes it, for the tests of later ones; as root, before the release of a new format
	$(call step,fixture,STRATA_FIXTURE=testdata go test -count 1 -run '^TestMakeFixture$$' ./snapshotter)

.PHONY: fuzz
fuzz: ## every fuzzer for FUZZTIME (10s)
	$(call step,fuzz,hack/fuzz.sh $(FUZZTIME))

.PHONY: bench
bench: ## against containerd's own unpack, as root; CORPUS=DIR: real layers, BENCH=FLAGS
	$(call step,bench deps,hack/deps.sh demo)
	$(if $(CORPUS),,$(call step,bench corpus,go run ./bench/mkcorpus -o $(BENCHCORPUS)))
	$(call step,bench,go run ./bench $(if $(CORPUS),-corpus $(CORPUS),-corpus $(BENCHCORPUS) $(BENCHSMALL)) $(BENCH))

.PHONY: bench-sharing
bench-sharing: ## pulls of images with common layers, as root; CORPUS=DIR, BENCH=FLAGS (-quick, -metadata too)
	$(call step,bench deps,hack/deps.sh demo)
	$(if $(CORPUS),,$(call step,bench corpus,go run ./bench/mkcorpus -o $(BENCHCORPUS)))
	$(call step,bench-sharing,go run ./bench -sharing -n 3 -corpus $(or $(CORPUS),$(BENCHCORPUS)) $(BENCH))

.PHONY: bench-metadata
bench-metadata: ## operations on 100 to 100,000 snapshots, as root; BENCH=FLAGS (-quick)
	$(call step,bench-metadata,go run ./bench -metadata -n 3 $(BENCH))

.PHONY: bench-calm
bench-calm: ## Prepare and Mounts while 1,000 snapshots are removed, as root; BENCH=FLAGS (-quick)
	$(call step,bench-calm,go run ./bench -calm -n 3 $(BENCH))

.PHONY: failpoints
failpoints: ## a crash and an error at every step that is marked for it, as root
	$(call step,failpoints,go vet -tags failpoint ./internal/failpoint ./layerstore ./snapshotter ./fsck && go test -tags failpoint -timeout 15m -count 1 -run 'Crash|ErrorAt|BeforeItIs|UnderWay|Environment|Settings|Block|Points|Nth' ./internal/failpoint ./snapshotter ./fsck)

.PHONY: faults
faults: ## every write of a round fails with every error, as root
	$(call step,faults,STRATA_TEST_EVERY_FAULT=1 go test -timeout 15m -count 1 -v -run 'TestEveryWriteFails' ./snapshotter)

.PHONY: crash
crash: crash-prove crash-ext4 crash-xfs crash-btrfs ## CUTS power cuts and KILLS of the daemon on ext4 and xfs, a tenth on btrfs, as root; SEED=N repeats

.PHONY: crash-prove
crash-prove: ## does crash find what is lost without durability?
	$(call step,crash can fail,go run ./crash -fs ext4 -cuts 1 -when commit -seed $(SEED) -files $(FILES) -prove)

.PHONY: crash-ext4 crash-xfs
crash-ext4 crash-xfs: crash-%: ## crash on one file system
	$(call step,crash $*,go run ./crash -fs $* -cuts $(CUTS) -kills $(KILLS) -seed $(SEED) -files $(FILES))

.PHONY: crash-btrfs
crash-btrfs: ## power cuts by another way on btrfs
	$(call step,crash btrfs,go run ./crash -fs btrfs -cuts $$(( ($(CUTS) + 9) / 10 )) -seed $(SEED) -files $(FILES))

.PHONY: soak
soak: ## MINUTES (10) of pulls, runs, commits, removals, collections, restarts and kills, as root; SEED=N repeats
	$(call step,soak deps,hack/deps.sh test)
	$(call step,soak,go run ./soak -minutes $(MINUTES) -seed $(SEED))

.PHONY: clean
clean: ## remove what was built; downloaded tools stay in .cache
	rm -rf $(BIN)
