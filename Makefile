# demo    the built-in continuum, end to end        test    the test suite
# check   lint, format, types                       docs    run the snippets of the documentation, check its links
# Each sets up .venv first, and again when pyproject.toml or constraints.txt has changed.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
# How to get torch when the default build is not the one you want; docs/install.md has examples.
TORCH_ARGS ?=
# Two workers take a bit more than half the time of one; each file's tests stay together.
PYTEST_ARGS ?= -n 2 --dist loadfile
BIN := .venv/bin

# OpenMP threads that wait give up their core instead of spinning. With another job on the machine, spinning threads made
# training several times slower than one thread; alone it makes no difference.
export OMP_WAIT_POLICY ?= passive
# glibc keeps big buffers instead of asking the system for fresh, zeroed pages at each batch (1.6 times as fast for images
# of 224 pixels). Other C libraries ignore both.
export MALLOC_MMAP_THRESHOLD_ ?= 4294967296
export MALLOC_TRIM_THRESHOLD_ ?= 17179869184

.PHONY: demo test check docs
.DELETE_ON_ERROR:

demo: .venv/.installed
	$(BIN)/liit demo

test: .venv/.installed
	$(BIN)/pytest $(PYTEST_ARGS)

check: .venv/.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: .venv/.installed
	$(BIN)/pytest tests/docs

# torch comes first, by itself, so that TORCH_ARGS can choose its build; the second line then finds it installed.
.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "liit needs Python 3.11 or newer; say which with: make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q $(TORCH_ARGS) "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[demo,base,dev]'
	@touch $@
