.DEFAULT_GOAL := help
.PHONY: help setup test lint

help: ## Lists these verbs
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: ## Puts libtorch into the checkout (once; verified by hash)
	@infra/setup/libtorch.sh

test: setup lint ## Sets everything up and passes the whole test suite
	cargo test --locked

lint: setup ## Formatting and clippy, warnings are errors
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
