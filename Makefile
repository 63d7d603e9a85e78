# Coracle's tasks; CI calls only these. `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Downloads and toolchains, outside of the work tree so that every checkout shares them.
CACHE ?= $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/coracle
PROFILE ?= dev
BIN := target/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
export CORACLE_CACHE := $(CACHE)
export CORACLE_BIN_DIR := $(abspath $(BIN))
export PATH := $(CACHE)/tools/bin:$(PATH)

SCRIPTS := $(shell git ls-files -- '*.sh' .ci/run deploy/testbed/vm/init deploy/testbed/k8s/systemctl)

.PHONY: help
help: ## Show this list.
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 18

.PHONY: setup
setup: ## Install what a fresh Debian 12 machine lacks (root).
	deploy/setup.sh

.PHONY: build
build: ## Build the shim, the coracle tool and the node daemon.
	cargo build --locked --profile $(PROFILE) --workspace --bins

.PHONY: images
images: ## Build the test images from source.
	test-images/build.sh

.PHONY: check
check: ## Formatting, lints, docs, licences, scripts: warnings are errors.
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings -A rustdoc::private-intra-doc-links' cargo doc --locked --workspace --no-deps --document-private-items
	cargo deny --all-features check licenses bans sources
	cargo deny --manifest-path engine/fuzz/Cargo.toml check licenses sources
	cargo fmt --manifest-path engine/fuzz/Cargo.toml --check
	cargo clippy --locked --manifest-path engine/fuzz/Cargo.toml --target-dir $(CACHE)/fuzz/test --all-targets -- -D warnings
	cargo fmt --manifest-path engine/benches/peers/Cargo.toml --check
	cargo fmt --all --manifest-path shim/adapters/runwasi/Cargo.toml --check
	cargo deny --manifest-path shim/adapters/runwasi/Cargo.toml check licenses sources
	cargo fmt --manifest-path engine/benches/corpus/rust/Cargo.toml --check
	cargo fmt --manifest-path test-images/thirdparty/ruby/Cargo.toml --check
	cargo fmt --manifest-path shim/box/Cargo.toml --check
	cargo clippy --locked --manifest-path shim/box/Cargo.toml --target-dir $(CACHE)/box -- -D warnings
	python3 -m unittest discover -q -s engine/supply-chain -p 'test_*.py'
	python3 engine/supply-chain/guard.py tree
	python3 engine/supply-chain/guard.py advisories
	shellcheck -x $(SCRIPTS)

.PHONY: test
test: setup build images test-unit test-box test-guests test-e2e test-installer test-node test-critest test-vm ## All tests: units, spec suite, real containerd and Docker.

.PHONY: test-unit
test-unit: build ## Tests that need no daemon, the spec suite included.
	python3 -m unittest discover -q -s test-images -p 'test_*.py'
	cargo test --locked --workspace
	cargo test --locked --manifest-path engine/fuzz/Cargo.toml --target-dir $(CACHE)/fuzz/test

.PHONY: test-box
test-box: setup ## The toolbox's module is what its source gives.
	shim/box/build.sh --check

.PHONY: test-guests
test-guests: build images ## Real programs that use sockets, under `coracle run`.
	cargo test --locked -p coracle-deploy --test guests

.PHONY: test-e2e
test-e2e: build images ## The main job under real containerd and Docker.
	CORACLE_LOG=info deploy/testbed/with.sh --daemons all cargo test --locked -p coracle-shim --test e2e -- --test-threads=2

.PHONY: test-node
test-node: build images ## The node daemon beside containerd 1.7 and 2.1.
	deploy/testbed/with.sh --daemons c21,k17,k21 cargo test --locked -p coracle-node --test daemon -- --test-threads=2

.PHONY: test-installer
test-installer: setup build ## The installer on nodes of all distributions, with real containerds and every step failing once.
	deploy/testbed/fetch.sh
	cargo test --locked -p coracle-installer --test nodes
	deploy/installer/tests/pods.sh

.PHONY: test-vm
test-vm: build images ## A part of test-cgroupv2 that emulation can do in minutes; all of it where KVM works.
	deploy/testbed/vm/run.sh --short
	deploy/testbed/vm/run.sh --systemd

.PHONY: test-critest
test-critest: build ## Kubernetes' conformance tests of CRI, with runc and with the shim.
	deploy/testbed/critest.sh

.PHONY: test-k8s
test-k8s: setup build images ## A real Kubernetes of one node, made and removed here. The first run builds it, which takes long.
	deploy/testbed/with.sh --daemons kube -- deploy/testbed/k8s/test.sh

.PHONY: test-chart
test-chart: build images ## The Helm chart in that Kubernetes: rendered, installed, tested there, upgraded, taken back to the byte.
	deploy/testbed/k8s-tools.sh
	PATH="$$(deploy/testbed/k8s-tools.sh --where):$$PATH" python3 -m unittest discover -q -s charts -p 'test_*.py'
	TESTBED_KUBE_WASM=no deploy/testbed/with.sh --daemons kube,d28 -- deploy/testbed/k8s/chart.sh

.PHONY: test-cgroupv2
test-cgroupv2: build images ## cgroup v2, with systemd and without, in virtual machines that have nothing of v1.
	deploy/testbed/vm/run.sh
	deploy/testbed/vm/run.sh --systemd

.PHONY: fuzz
fuzz: ## Fuzz all targets of the engine, 15 minutes in all (FUZZ_SECONDS changes it).
	engine/fuzz/run.sh

.PHONY: bench
bench: ## Measure all: bench-engine, bench-start, bench-density (BENCH_ARGS="--quick").
	$(MAKE) bench-engine
	$(MAKE) bench-start
	$(MAKE) bench-density

.PHONY: bench-engine
bench-engine: setup ## Measure the engine against wasmtime, WasmEdge and native code (BENCH_ARGS="--help").
	engine/benches/bench.sh $(BENCH_ARGS)

.PHONY: bench-start
bench-start: setup build images ## Measure how long containers take to start, beside runc and runwasi (BENCH_ARGS="--help").
	shim/benches/start.sh $(BENCH_ARGS)

.PHONY: bench-density
bench-density: setup build images ## Measure what idle containers take of a node, beside runc and runwasi (BENCH_ARGS="--help").
	shim/benches/density.sh $(BENCH_ARGS)

.PHONY: dist
dist: ## Make what is released: archive, chart, context of the image, bills of materials, checksums.
	deploy/package/dist.sh

.PHONY: kind-up kind-test kind-down
kind-up: ## A cluster of kind's with the chart installed (needs docker, kind, kubectl, helm, the internet).
	deploy/kind/kind.sh up
kind-test: ## The test programme in that cluster.
	deploy/kind/kind.sh test
kind-down: ## Uninstall the chart and remove that cluster.
	deploy/kind/kind.sh down

.PHONY: testbed
testbed: setup build images ## Start containerd and Docker side by side and say how to use them.
	deploy/testbed/up.sh

.PHONY: demo
demo: setup build images ## Run a WebAssembly hello and Python under a real Docker.
	deploy/testbed/with.sh deploy/demo.sh
