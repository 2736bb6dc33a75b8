# The default target lists the others. Each readies what it needs (deploy/setup) and runs it from .venv.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
.DEFAULT_GOAL := help
.PHONY: help setup build demo test lint test-asan test-deep test-pages package test-memory test-crowd test-confined test-lab compare evade mutants exhaustive fuzz deb test-deb test-vm test-lossy bench bench-loss bench-hostile bench-events annotate clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1	\2/p' Makefile | expand -t 12

setup: ## system packages, .venv and extensions, for everything below
	@deploy/setup test

build: ## .venv and the extensions; quick when nothing changed
	@deploy/setup build

demo: ## guarded mail on a real queue, before your eyes
	@deploy/setup demo
	@nfmailguard lab demo

test: setup lint ## everything CI runs, but for the sanitizer
	pytest -n auto --maxprocesses 4

lint: build ## formatting, ruff, mypy, cython-lint, names left behind
	ruff format --check
	ruff check
	mypy
	cython-lint cext tests/fuzz/harness/*.pyx tests/fuzz/harness/*.pxd tests/core/*.pyx tests/exhaustive/*.pyx tests/exhaustive/*.pxd
	python -m tests.names

test-asan: build ## the core's tests under AddressSanitizer
	tests/asan.sh

test-deep: build ## the searching tests with many more examples
	pytest -o faulthandler_timeout=3600 -m "not live and not sources" --hypothesis-profile=deep

test-pages: ## HTML pages in a real Chromium: keyboard, phone, dark mode, axe-core, 50,000 lines
	@deploy/setup pages
	pytest tests/pages

mutants: build ## takes each rule out of the core; a test has to notice (forty minutes on two cores, the first time)
	nice -n 10 python -m tests.mutants.run --write

exhaustive: build ## every course of events between an adversary and a server's kernel, to a depth of 8 (ten minutes)
	nice -n 10 python -m tests.exhaustive.search

package: build ## sdist and wheel, installed and tried outside the checkout; needs the package index
	python -m tests.packaging.smoke

deb: ## dist/nfmailguard_*.deb for the Debian release of this machine; needs the package index
	@deploy/deb

test-deb: ## the package in a bare Debian: installed, tried, purged without a trace; as root, DEB_ROOT=FOLDER of debootstrap
	tests/packaging/deb.sh

test-vm: ## the package on a real Debian in software emulation: native queues, systemd, faults; as root, half an hour
	@deploy/setup vm
	@$(MAKE) --no-print-directory deb
	pytest -p no:xdist -o faulthandler_timeout=1800 tests/vm

test-memory: build ## a million flows, SYN floods, full memory: does it stay under its cap?
	python -m tests.memory.flood --flows 1000000

test-crowd: setup ## 140,000 tricked flows, 20,000 idle ones, 31,000 greedy ones: is honest mail served? As root
	python -m tests.memory.crowd

test-confined: setup ## takes every system call and capability from a gateway once: does something fail? As root
	CONFINED_ALL=1 pytest tests/live/test_confined.py -k needed

test-lab: setup ## labs up and down, and killed at any moment, a hundred times each: is anything left? As root
	LAB_TIMES=100 pytest tests/live/test_lab_live.py -k "leaves_nothing"

compare: ## six clients, five servers, every profile, three modes: what was expected? As root, some minutes
	@deploy/setup compare
	@mkdir -p build
	nfmailguard lab compare --record build/compare.txt --html build/compare.html

evade: setup ## every way round, live: six profiles, both families, SYN cookies, real servers; some forty minutes
	python -m tests.live.evade_matrix

fuzz: ## coverage-guided fuzzing under the sanitizers, FUZZ_SECONDS=120
	@deploy/setup fuzz
	@python -m tests.fuzz.run

test-lossy: setup ## a thousand mails a mode over lossy links
	LOSSY_MAILS=1000 pytest tests/live/test_lossy.py

bench: ## all benchmarks, with each target's figure and yes or no, as root: build/bench/index.html
	@deploy/setup bench
	@mkdir -p build/bench
	nfmailguard bench all --json build/bench/report.json --plot build/bench --html build/bench/index.html

bench-loss: setup ## bulk mail under loss beside accept-all, as root; some ten minutes
	python benchmarks/loss.py --json build/loss.json

bench-hostile: build ## what hostile octets cost beside honest text, in instructions; needs valgrind
	python benchmarks/hostile.py

bench-events: build ## what writing events costs a mail, and 100,000 mails a second for a minute; two minutes
	python benchmarks/events.py

annotate: build ## Cython's view of each line: build/annotate/*.html
	@mkdir -p build/annotate
	@for source in $$(find cext -name '*.pyx'); do \
	    module=nfmailguard.$$(echo $${source%.pyx} | tr / .); \
	    cython -3 --annotate -I build/include --module-name $$module -o build/annotate/$$module.c $$source || exit 1; done

clean: ## removes what was built, keeps .venv
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src/nfmailguard/cext -name '*.so' -delete
