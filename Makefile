# Every target sets up what it needs: Python 3.10 or newer, Rust and make are all that must be there.
# `make help` lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROMPT ?= Write a haiku about ice hockey
CARGO_FLAGS := --release --locked

# On an ARM CPU without half-precision arithmetic, .cargo/config.toml would build what cannot run.
ifeq ($(shell uname -s)-$(shell uname -m),Linux-aarch64)
ifeq ($(shell grep -c asimdhp /proc/cpuinfo),0)
export RUSTFLAGS := -C target-cpu=generic
endif
endif

RUST_SOURCES := $(shell find src -name '*.rs') Cargo.toml Cargo.lock pyproject.toml

.PHONY: help demo test test-rust test-aarch64 test-python lint stubs bench-download wheel clean

help: ## list the targets
	@grep -E '^[a-z0-9-]+:.*## ' Makefile | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

demo: $(VENV)/package ## build, and stream a haiku from the model inside the package
	@$(BIN)/candlewick run --model demo "$(PROMPT)"

test: $(VENV)/package ## everything a change must pass: Rust tests, Python tests, stubs, formatting and lint
	$(MAKE) --no-print-directory test-rust
	$(MAKE) --no-print-directory lint
	$(MAKE) --no-print-directory stubs
	$(MAKE) --no-print-directory test-python

test-rust: ## Rust tests
	cargo test $(CARGO_FLAGS) --quiet

test-aarch64: ## the kernels and the ids they lead to on 64-bit ARM, cross-compiled and run under qemu
	scripts/test_kernels_aarch64.sh

test-python: $(VENV)/package ## Python tests and docstring examples
	$(BIN)/python -m pytest

stubs: $(VENV)/package ## type stubs against the built module, and the package under mypy --strict
	$(BIN)/python -m mypy.stubtest candlewick._native
	$(BIN)/python -m mypy

lint: $(VENV)/tools ## formatting and lint
	cargo fmt --check
	cargo clippy $(CARGO_FLAGS) --quiet --all-targets --features python -- -D warnings
	$(BIN)/ruff format --check python tests scripts benches examples
	$(BIN)/ruff check python tests scripts benches examples

bench-download: $(VENV)/package ## a 2.4 GB download on loopback against curl and sha256sum
	$(BIN)/python benches/download.py

wheel: $(VENV)/tools ## a wheel for this machine's platform, in dist/
	$(BIN)/maturin build --release --locked --out dist

clean: ## remove everything that was built
	rm -rf $(VENV) target dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The environment and the tools, again only when their list changes.
$(VENV)/tools: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet "maturin>=1.14,<2" --group test
	touch $@

# The package, installed so that its Python files are used in place; again only when Rust sources change.
$(VENV)/package: $(VENV)/tools $(RUST_SOURCES)
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop $(CARGO_FLAGS) --quiet
	touch $@
