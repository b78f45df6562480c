# A short front for Meson and the test runners; see README.md.
BUILD ?= build
ASAN_BUILD ?= build-asan
PREFIX ?= /usr/local
CHECK ?=

.PHONY: all run check bench fuzz faults install clean

all:
	@scripts/deps.sh build
	@scripts/build.sh $(BUILD) martlet

# Builds, then starts Martlet on 127.0.0.1:2525 with the embedded default configuration; mail arrives under ./run.
run: all
	@scripts/run-demo $(BUILD)/martlet run

# Everything that can fail: banned functions, unit tests, end-to-end, crash and conformance tests, under sanitizers.
# Only some parts: make check CHECK="banned unit e2e crash faults conformance"
check:
	@scripts/deps.sh build test
	@scripts/check --build $(BUILD) --asan-build $(ASAN_BUILD) $(CHECK)

# Side by side with Debian's Exim and Postfix. Options: make bench BENCH="--rounds 5 --messages 5000"
bench:
	@scripts/deps.sh build test
	@scripts/peers.sh $(BUILD)/peers
	@scripts/build.sh $(BUILD)-release martlet mailauth_bench -- --buildtype=release
	@bench/run.py --binary $(BUILD)-release/martlet --peers $(BUILD)/peers $(BENCH)

# Long runs of the fuzz targets (needs clang): make fuzz SECONDS=600 FUZZ="config expansion"
SECONDS ?= 60
FUZZ ?=
fuzz:
	@scripts/deps.sh build fuzz
	@scripts/fuzz --seconds $(SECONDS) $(FUZZ)

# Next hops, disk and mailboxes that fail at random, for long: make faults SECONDS=600
faults:
	@scripts/deps.sh build test
	@MARTLET_FAULT_SECONDS=$(SECONDS) scripts/check --build $(BUILD) faults

install: all
	@meson configure $(BUILD) --prefix=$(PREFIX) >/dev/null
	@meson install --no-rebuild -C $(BUILD)

clean:
	rm -rf $(BUILD) $(ASAN_BUILD) $(BUILD)-release build-fuzz
