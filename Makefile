# GNU make in front of Meson and ninja. `make help` lists the targets.

PORT ?= 8000
PREFIX ?= /usr/local
DESTDIR ?=
FUZZ_SECONDS ?= 20
# More arguments for `meson test`, for example TEST_ARGS='--suite unit'.
TEST_ARGS ?=
# true: a compiler warning is an error. Off for users, whose compiler may know warnings that ours
# does not.
WERROR ?= $(if $(filter true,$(CI)),true,false)

MAKEFLAGS += --no-print-directory
CONFIGURE = tools/configure.sh
MESON_TEST = meson test --print-errorlogs $(TEST_ARGS)
# Threads have little to do with these, or they take many minutes where every access is watched; UCX
# is not compiled for it, so that what its thread and others say to each other goes unseen.
TSAN_LEFT_OUT = fabric_ucx_.*|ep_.*_ucx|ep_pipeline|model_forward|engine_(instance|resume)|server_(format|connections|metrics_live|rank_hosts|slo)|bench(_ranks)?|tools_.*|text_.*|grammar_.*|fuzz_.*|policy_.*
# The slowest sanitizer makes a test about ten times slower.
SANITIZED_TEST = $(MESON_TEST) --no-suite tidy --timeout-multiplier 10

# The first file says where the Arm libraries are (tools/arm64_sysroot.sh).
ARM64_CROSS = --cross-file build-arm64/sysroot.ini --cross-file tools/cross/aarch64-linux-gnu.ini

# MemorySanitizer knows only what it compiled; clang 14's also takes glibc's fstat for unknown code.
MSAN_TESTS = (base|kernels|policy)_.*|os_team|engine_message

# Allocations that the code expects to fail return NULL, as they do without a sanitizer.
export ASAN_OPTIONS ?= detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1:allocator_may_return_null=1
export UBSAN_OPTIONS ?= print_stacktrace=1:halt_on_error=1
export TSAN_OPTIONS ?= halt_on_error=1:second_deadlock_stack=1:allocator_may_return_null=1
export MSAN_OPTIONS ?= allocator_may_return_null=1
# UCX writes jumps into libc's madvise and others when it is loaded, to hear of memory that goes; a
# thread that ends under TSan calls them when it cannot call TSan any more.
export UCX_MEM_MMAP_HOOK_MODE ?= none

.PHONY: build
build: ## the release binary, build/cminfer (the default)
	@test -f build/build.ninja || { tools/setup.sh --check run && $(CONFIGURE) build -Dwerror=$(WERROR); }
	@ninja -C build cminfer

.PHONY: run
run: ## set up, build, start a server on PORT (8000), show one answer, serve until Ctrl-C
	@tools/setup.sh run
	@$(MAKE) build
	@PORT=$(PORT) exec tools/run.sh

.PHONY: test
test: ## set up, build, run every test; those of build-arm64 too if it was built
	@tools/setup.sh test
	@$(CONFIGURE) build -Dtests=enabled -Dwerror=$(WERROR)
	@$(MESON_TEST) -C build
	@test ! -f build-arm64/build.ninja || $(MAKE) arm64

.PHONY: install
install: build ## install under DESTDIR and PREFIX (/usr/local)
	install -D -m 755 build/cminfer $(DESTDIR)$(PREFIX)/bin/cminfer

.PHONY: setup
setup: ## install every package that any target below needs
	@tools/setup.sh dev

.PHONY: bench
bench: build ## the limits of this machine, and every kernel against them
	@build/cminfer bench --machine
	@build/cminfer bench --kernels

.PHONY: asan debug
debug: asan
asan: ## tests under AddressSanitizer, LeakSanitizer and UndefinedBehaviorSanitizer
	@tools/setup.sh test
	@$(CONFIGURE) build-asan -Dbuildtype=debugoptimized -Db_sanitize=address,undefined -Db_lundef=false -Dtests=enabled -Dwerror=$(WERROR)
	@$(SANITIZED_TEST) -C build-asan

.PHONY: tsan
tsan: ## tests under ThreadSanitizer, without those in which threads have little to do
	@tools/setup.sh test
	@$(CONFIGURE) build-tsan -Dbuildtype=debugoptimized -Db_sanitize=thread -Db_lundef=false -Dtests=enabled -Dwerror=$(WERROR)
	@$(SANITIZED_TEST) -C build-tsan $$(meson test -C build-tsan --list --no-suite golden --no-suite kernels --no-suite tidy 2>/dev/null | sed 's,.* / ,,' | grep -vxE '$(TSAN_LEFT_OUT)')

.PHONY: msan
msan: ## tests of the folders without dependencies under MemorySanitizer
	@tools/setup.sh dev
	@CC=clang $(CONFIGURE) build-msan -Dbuildtype=debugoptimized -Db_sanitize=memory -Db_lundef=false -Dtests=enabled -Dwerror=$(WERROR)
	@$(SANITIZED_TEST) -C build-msan $$(meson test -C build-msan --list 2>/dev/null | sed 's,.* / ,,' | grep -xE '$(MSAN_TESTS)')

.PHONY: clang
clang: ## the release and its tests with clang
	@tools/setup.sh dev
	@CC=clang $(CONFIGURE) build-clang -Dtests=enabled -Dwerror=$(WERROR)
	@CMI_FEW=1 $(MESON_TEST) -C build-clang --no-suite tidy

.PHONY: arm64
arm64: ## a release for Arm, build-arm64/cminfer, and its tests on emulated processors
	@tools/setup.sh arm64
	@$(CONFIGURE) build -Dtests=enabled -Dwerror=$(WERROR)
	@ninja -C build cminfer tests/kernels/kernels_digest
	@$(CONFIGURE) build-arm64 $(ARM64_CROSS) -Dtests=enabled -Dnative_build=build -Dwerror=$(WERROR)
	@$(MESON_TEST) --timeout-multiplier 10 -C build-arm64

.PHONY: native
native: ## a release for this machine's processor only, build-native/cminfer
	@tools/setup.sh run
	@$(CONFIGURE) build-native -Dc_args=-march=native
	@ninja -C build-native cminfer

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZ_SECONDS (20) from its committed corpus
	@tools/setup.sh dev
	@CC=clang $(CONFIGURE) build-fuzz -Dbuildtype=debugoptimized -Db_sanitize=address,undefined -Db_lundef=false -Dfuzz=true -Dtests=disabled
	@ninja -C build-fuzz
	@tools/fuzz.sh $(FUZZ_SECONDS)

.PHONY: format
format: ## clang-format on every C file
	@tools/setup.sh dev
	@find src tests fuzz -name '*.[ch]' -exec clang-format -i {} +

.PHONY: tidy
tidy: ## the checks of tools/tidy.py
	@tools/tidy.py

.PHONY: hooks
hooks: ## install the pre-commit hook into this clone
	@mkdir -p "$$(git rev-parse --git-path hooks)"
	@ln -sf "$(CURDIR)/tools/pre-commit" "$$(git rev-parse --git-path hooks)/pre-commit"

.PHONY: clean
clean: ## delete every build folder
	rm -rf build build-*

.PHONY: help
help: ## this text
	@sed -n 's/^\([a-z0-9]*\):[^#]*## /\1\t/p' Makefile | while IFS="$$(printf '\t')" read -r name text; do printf '  make %-8s  %s\n' "$$name" "$$text"; done
