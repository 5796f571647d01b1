# make demo    set up .venv and solve a first problem          make test    the fast tests
# make lint    ruff                                             make types   mypy on what a user would install
# make bench   times against other packages                     make clean   everything that is not in the repository
#
# A stamp file in .venv says that an extra is installed there; it is redone when setup.cfg, pyproject.toml or
# constraints.txt change, and only then. The code itself is linked, so editing it needs no second installation.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
BENCH ?= solvers
# Processes for the tests: `make test JOBS=1` runs them in one, with plain output.
JOBS ?= auto

BIN := $(VENV)/bin
CONFIG := setup.cfg pyproject.toml constraints.txt
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test test-slow lint types bench clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed-plot
	$(BIN)/sparseopt demo $(ARGS)

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m "not slow" -n $(JOBS) --dist loadfile $(ARGS)

test-slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy does not see through an editable installation, and from this folder it would take nn/ for a package of its own.
# So it runs elsewhere, on a wheel in a fresh environment that borrows the other packages of $(VENV).
types: $(VENV)/.installed-test
	rm -rf build $(VENV)-types
	$(BIN)/python -m venv --without-pip $(VENV)-types
	$(PIP) wheel --quiet --no-deps --no-build-isolation --wheel-dir $(VENV)-types .
	$(PIP) --python $(VENV)-types/bin/python install --quiet --no-deps --no-index $(VENV)-types/*.whl
	$(BIN)/python -c "import pathlib, sysconfig; \
	  path = sysconfig.get_path('purelib', vars={'base': '$(abspath $(VENV)-types)'}); \
	  pathlib.Path(path, 'borrowed.pth').write_text(sysconfig.get_path('purelib') + '\n')"
	cd $(VENV)-types && bin/python -m mypy --config-file $(CURDIR)/setup.cfg -p sparseopt

# Peers live apart from the tests: adelie needs NumPy 1. `make bench BENCH=selection` runs bench_selection.
bench: $(VENV)-bench/.installed
	$(VENV)-bench/bin/python -m sparseopt.experiments.bench_$(BENCH) $(ARGS)

clean:
	rm -rf $(VENV) $(VENV)-types $(VENV)-bench build dist *.egg-info
	rm -rf .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find sparseopt nn proofs_checks experiments tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c "import sys; sys.version_info >= (3, 10) or sys.exit('sparseopt needs Python 3.10 or later, not ' \
	  + sys.version.split()[0] + ': run make PYTHON=/path/to/python')"
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-%: $(CONFIG) | $(BIN)/python
	$(PIP) install --quiet -c constraints.txt -e ".[$*]"
	@touch $@

$(VENV)-bench/.installed: $(CONFIG)
	$(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/python -m pip install --disable-pip-version-check --quiet \
	  "numpy<2" adelie celer skglm scikit-learn group-lasso abess skscope -e ".[plot]"
	@touch $@
