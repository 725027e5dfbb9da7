.DEFAULT_GOAL := help
.PHONY: help setup readers airflow demo test lint

help: ## Lists these verbs
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: ## Puts libtorch into the checkout (once; verified by hash)
	@infra/setup/libtorch.sh

readers: ## Puts other people's readers of Delta tables into .venv, for the tests (once; verified by hash)
	@infra/setup/python.sh

airflow: ## Puts Airflow into .airflow, for the test that loads jobs/airflow/ (once; verified by hash)
	@infra/setup/airflow.sh

demo: setup ## Builds, simulates a shop, trains a small model, runs two nights and shows the tables (./demo)
	cargo build --locked
	jobs/demo.sh $${CARGO_TARGET_DIR:-target}/debug/intentcast

test: setup readers airflow lint ## Sets everything up and passes the whole test suite
	cargo test --locked

lint: setup ## Formatting and clippy, warnings are errors
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
