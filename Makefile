# The commands of the project; `make help` lists them.

.DEFAULT_GOAL := help
.PHONY: help run build console test security faults fleet test-e2e lighthouse lint fmt generate bundle-report bench bench-api bench-fleet bench-link soak catalog-proof deny fuzz smoke clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

run: ## Check for what is missing, build, and start Toolyard on this machine
	@scripts/check-tools.sh run
	@scripts/console.sh
	cargo build --release --package toolyard
	@./target/release/toolyard serve

build: ## Build the release binary with the web console in it, target/release/toolyard
	@scripts/check-tools.sh build
	@scripts/console.sh
	cargo build --release --package toolyard

console: ## Build the web console alone, into console/dist
	@scripts/console.sh

test: ## Install what the tests need and run everything
	@scripts/test.sh

security: ## Attack the built program in every way; writes docs/reports/security.md
	@scripts/suite.sh security

faults: ## Break what the program stands on; writes docs/reports/faults.md
	@scripts/suite.sh faults

fleet: ## Hurt a fleet of agents in every way; writes docs/reports/fleet.md
	@scripts/fleet.sh

test-e2e: ## Drive the console in Chromium, Firefox and WebKit against a real Toolyard
	@scripts/test-e2e.sh

lighthouse: ## Rate every page of the console; writes docs/reports/lighthouse.md
	@scripts/lighthouse.sh

lint: ## Formatting, lints, crate edges, generated files, types and budgets of the console
	@scripts/lint.sh

fmt: ## Format the code
	cargo fmt --all

generate: ## Write the generated files (.env.example, reference pages, OpenAPI)
	cargo xtask generate

bundle-report: ## Write what each page of the console loads to docs/reports/bundle.md
	@scripts/console.sh
	cargo xtask budgets --report

bench: ## Measure the gateway against a direct connection; writes docs/reports/gateway-bench.md
	@scripts/bench.sh

bench-api: ## Measure searches, lists, start-up and memory; writes docs/reports/api-bench.md
	@scripts/bench-api.sh

bench-fleet: ## Measure 1,000 simulated toolboxes with 10,000 instances; writes docs/reports/fleet-bench.md
	@scripts/bench-fleet.sh

soak: ## Use two toolboxes for half an hour in every way; writes docs/reports/soak.md
	@scripts/soak.sh

bench-link: ## Measure calls through an agent's link against local ones; writes docs/reports/link-bench.md
	@scripts/bench-link.sh

catalog-proof: ## Start every curated npm and PyPI server for real; writes docs/reports/catalog-proof.md
	@scripts/check-tools.sh run
	cargo build --release --package toolyard
	cargo xtask catalog-proof

deny: ## Check licences, bans and sources of every dependency
	@command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny check bans licenses sources

fuzz: ## Fuzz the parsers of what others send, a minute each
	@scripts/fuzz.sh

smoke: ## Check this deployment target: bare, systemd, container or cluster
	@scripts/smoke.sh
