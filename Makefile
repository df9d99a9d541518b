# The table of contents of upkeep: `make` alone prints it. Every target sets up what it needs, once, in .venv.
# PYTHON=/path/to/python chooses the Python (3.11 or newer) that the environment is made with; ARGS="..." is passed on.

VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
INPUTS := pyproject.toml constraints.txt tools/setup_environment.py

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test verify lint bench planted-bugs faults dist clean again

# Each stamp holds the folder it was made in: a copied or moved checkout, or a lost Python, means setting up again.
ifneq ($(shell test -x $(BIN)/python && cat $(VENV)/.installed-core 2>/dev/null),$(CURDIR))
AGAIN := again
endif

help: ## print this list
	@awk 'BEGIN { FS = ":.*## "; print "make TARGET  (everything is set up on first use)\n" } \
	      /^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.installed-core ## train a small model in under five minutes and watch it learn to write
	@$(BIN)/tiny demo $(ARGS)

test: $(VENV)/.installed-test ## run the tests (ARGS="-k attention" for some of them)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

verify: $(VENV)/.installed-core ## check the installation, with a self-test of five seconds
	@$(BIN)/python tools/verify_environment.py $(ARGS)

lint: $(VENV)/.installed-dev ## ruff, and mypy in strict mode on the package
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.installed-test ## measure speed beside the peers, in the same run, and make docs/benchmarks.md anew
	$(BIN)/python -m benchmarks $(ARGS)

planted-bugs: $(VENV)/.installed-test ## plant small mistakes in a copy, one by one: a test must fail for each
	$(BIN)/python tests/planted_bugs.py $(ARGS)

faults: $(VENV)/.installed-test ## the long campaigns of generated cases: a million texts, ten minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults $(ARGS)

dist: $(VENV)/.installed-core ## build a wheel into dist/
	@rm -rf build  # what an earlier build left there would get into the wheel
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	@ls dist

clean: ## remove caches and built files; keeps .venv, data, checkpoints, experiments and samples
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

.PRECIOUS: $(VENV)/.installed-%
$(VENV)/.installed-%: $(INPUTS) $(AGAIN)
	@for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11 python); do \
	    "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && break; python=; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "$(or $(PYTHON),python3) is not Python 3.11 or newer. Install one (https://www.python.org), or name it: make PYTHON=/path/to/python3.11" >&2; \
	    exit 2; \
	fi; \
	"$$python" tools/setup_environment.py $*
