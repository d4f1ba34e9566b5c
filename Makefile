# `make` or `make help` lists the targets: each one has its sentence behind "##".
.DEFAULT_GOAL := help
.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-zA-Z0-9_-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# What the project's own files cannot install. A missing one is an error that says what to do, never a skipped check.
.PHONY: tools compilers
tools: compilers
	@cargo fmt --version >/dev/null 2>&1 || { echo "rustfmt is missing: rustup component add rustfmt"; exit 1; }
	@cargo clippy --version >/dev/null 2>&1 || { echo "clippy is missing: rustup component add clippy"; exit 1; }

compilers:
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust 1.95 or newer with rustfmt and clippy (rustup)"; exit 1; }
	@command -v go >/dev/null || { echo "go is missing: install Go 1.26 or newer"; exit 1; }
	@command -v cc >/dev/null || { echo "a C compiler is missing: install gcc (Debian: apt-get install gcc libc6-dev)"; exit 1; }

FAST := --workspace --exclude meshupgrade-e2e --exclude meshupgrade-testbed --exclude meshupgrade-arm-simulator

.PHONY: check test
check: tools ## the fast part, for the inner loop: formatting, lints, unit tests, sequences, golden files, Lua of Argo CD
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo test --locked $(FAST)
	@# Not from the cache of results: it does not see that scripts outside of the module changed.
	cd tests/argo-cd && go vet ./... && go test -count=1 ./...
	$(SIMULATOR) --lib --bins --test behaviour
	$(SIMULATOR) --doc

test: check ## the one test command: check, then everything on the real control plane
	$(TESTBED) build
	$(MAKE) --no-print-directory verify-generated
	cargo test --locked --package meshupgrade-testbed
	@$(MAKE) --no-print-directory clients
	$(MAKE) --no-print-directory e2e

# Each target has a control plane of its own, on which its scenarios run one after the other. Most of their time they wait,
# so that two at once fit on two cores.
E2E := cargo test --locked --package meshupgrade-e2e
LONG := completion:: control_plane:: crash:: labels::
E2E_TARGETS := e2e-long e2e-faults e2e-short e2e-defaults e2e-telemetry e2e-aks
.PHONY: e2e $(E2E_TARGETS)
# On the command line only: who has KUBECONFIG in the environment does not ask for scenarios on that cluster.
ifeq ($(origin KUBECONFIG),command line)
e2e: compilers
	cargo run --quiet --locked --package meshupgrade-e2e --bin real-cluster
else
e2e: ## all scenarios on test control planes; with KUBECONFIG=… SOURCE=… TARGET=… those that fit on that cluster
	$(E2E) --no-run
	@# As e2e/src/operator.rs does it, so that it need not: control planes would start while the operator is compiled.
	cargo build --locked --package meshupgrade-operator --package meshupgrade-cli
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target $(E2E_TARGETS)
endif

e2e-short: ## upgrade and rollback, without faults (about 2 minutes)
	$(E2E) --lib --bins --test upgrade --test rollback

e2e-defaults: ## one upgrade with every default (about a minute)
	$(E2E) --test defaults

e2e-telemetry: ## a real Prometheus, and xDS clients of the real istiods (about a minute)
	$(E2E) --test telemetry

e2e-aks: ## the AKS add-on, with a simulated Azure that installs and removes real istiods, and the real az (about 3 minutes)
	$(E2E) --test aks

e2e-long: ## faults, first half
	$(E2E) --test faults -- $(LONG)

e2e-faults: ## faults, second half: everything that is not in the first
	$(E2E) --test faults -- $(LONG:%=--skip=%)

# All but the real clients belongs to `make check`: those are installed from the Python package index.
SIMULATOR := cargo test --locked --package meshupgrade-arm-simulator

.PHONY: clients
clients: compilers ## the Azure SDK for Python and the Azure CLI against the simulated ARM (4 minutes the first time, then 15 seconds)
	@command -v python3 >/dev/null || { echo "python3 is missing: install Python 3.10 or newer with its venv module"; exit 1; }
	$(SIMULATOR) --test clients

.PHONY: search
search: tools ## search larger small worlds exhaustively than `make test` does (some minutes)
	cargo test --locked --package meshupgrade-sequences -- --ignored --nocapture explore

.PHONY: planted
planted: tools ## show that sequences and scenarios catch deliberate breaks of invariants and important rules
	tests/planted/run.sh
	$(TESTBED) build
	tests/planted/run.sh --scenarios

# The test control plane: a real API server with two real istiod revisions on this machine, without containers.
TESTBED := cargo run --quiet --package meshupgrade-testbed --bin testbed --

.PHONY: cluster-build cluster-up cluster-down
cluster-build: ## build the programs of the test control plane into the cache (about 10 minutes the first time; needs Go)
	$(TESTBED) build

cluster-up: ## leave a test control plane running in the background and print how to use it
	$(TESTBED) up

cluster-down: ## end the test control plane of cluster-up
	$(TESTBED) down

# The time that the builds take is part of what the demo tells at its end.
DEMO = since=$$(date +%s); cargo build --locked --package meshupgrade-operator \
	&& cargo build --locked --package meshupgrade-e2e --bin demo \
	&& cargo run --quiet --locked --package meshupgrade-e2e --bin demo -- --since $$since

.PHONY: demo demo-rollback demo-self-managed
demo: compilers ## start a real control plane, a simulated Azure and a mesh, and show the upgrade of the AKS add-on from start to end
	@$(DEMO)

demo-rollback: compilers ## the same with a workload that does not come up on the new revision: everything goes back
	@$(DEMO) --rollback

demo-self-managed: compilers ## the upgrade without Azure, of istiods that somebody else installs and removes
	@$(DEMO) --self-managed

# helm: the one of the test control plane when it was built, else the one on PATH.
HELM ?= $(or $(firstword $(wildcard $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/meshupgrade/testbed/*/bin/helm)),helm)

.PHONY: generate verify-generated
generate: ## write the CustomResourceDefinition, its copy in the chart, and the files for kustomize and Argo CD
	HELM=$(HELM) config/generate.sh

verify-generated: ## fail when generated files are stale
	@rm -rf target/generated
	HELM=$(HELM) config/generate.sh $(CURDIR)/target/generated
	@for file in $$(cd target/generated && find . -type f); do \
		diff -u "$$file" "target/generated/$$file" || { echo "$$file is stale: make generate"; exit 1; }; done
