.DEFAULT_GOAL := help
.PHONY: help setup readers airflow clients demo check test lint docs bench

help: ## Lists these verbs
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: ## Puts libtorch and LightGBM into the checkout (once; verified by hash)
	@infra/setup/libtorch.sh

readers: ## Puts other people's readers of Delta tables and event files into .venv, for the tests (once; verified by hash)
	@infra/setup/python.sh

airflow: ## Puts Airflow into .airflow, for the test that loads jobs/airflow/ (once; verified by hash)
	@infra/setup/airflow.sh

clients: ## Puts the clients of the tests into .clients: a browser's driver, Python's SQL clients; as root also Debian's programs (once)
	@infra/setup/clients.sh

demo: setup ## Builds, simulates a shop, trains a small model, runs two nights, shows the tables and writes a report (./demo)
	cargo build --locked
	jobs/demo.sh $${CARGO_TARGET_DIR:-target}/debug/intentcast

# Networks as small as the tests' gain nothing from threads, which wait for one another where cores are busy.
check test: export OMP_NUM_THREADS = 1
# One more than cores: tests wait for a shop that another test trains, for a lock that expires, for a process that they kill.
check test: export RUST_TEST_THREADS = $(shell expr $$(nproc) + 1)

check: setup readers lint ## Formatting, clippy, unit tests and the shorter tests that train nothing
	cargo test --locked --lib
	cargo test --locked --test integration -- --skip trained:: --skip long::

test: setup readers airflow clients lint ## Sets everything up and passes the whole test suite
	cargo test --locked

lint: setup ## Formatting and clippy, warnings are errors
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings

docs: setup ## Generates docs/reference/, jobs/nightly.toml, three SQL checks and what sessions print; the tests compare them
	INTENTCAST_WRITE_DOCS=1 cargo test --locked --test integration -- references:: the_sessions_of_the_documents

bench: setup ## Release benchmarks: scoring by number of owners, last events against array_agg
	cargo bench --locked --bench scoring
	cargo bench --locked --bench last_events
