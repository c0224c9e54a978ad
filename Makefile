# `make demo` and `make test` set everything up by themselves; see scripts/ for what each does.
.PHONY: help demo test check build bench bench-images proofs fuzz install clean-cache
.DEFAULT_GOAL := help

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

demo: ## build, make a real image, push it to a registry on loopback, run it
	@scripts/demo.sh

test: ## format, lints, every test (root, or sudo for those that mount)
	@scripts/test.sh

check: ## format and lints only
	@scripts/check.sh

build: ## the optimised binary, in the build cache
	@scripts/build.sh

install: ## the binary to $(PREFIX)/bin (default /usr/local)
	@scripts/build.sh --install "$(or $(PREFIX),/usr/local)"

bench: ## cold pull and run beside containerd and podman; BENCH_ARGS are the harness's own
	@scripts/bench.sh $(BENCH_ARGS)

bench-images: ## the images of the bench
	@bench/images.sh

proofs: ## crashes, power cuts and faults by the thousand: half an hour; PROOFS names some
	@scripts/proofs.sh $(PROOFS)

fuzz: ## every fuzz target for FUZZ_SECONDS (60) each
	@scripts/fuzz.sh

clean-cache: ## removes the build cache outside the checkout (RocksDB too)
	@scripts/build.sh --clean
