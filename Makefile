# Everything that is done with this project, each as one command. On a fresh Debian machine:
#   sudo make demo      sudo make test
# Both install what they need; as root neither needs sudo.

# The system's own Python: what the package runs on. Not one of pyenv that is first on PATH.
PYTHON = /usr/bin/python3
PYTEST = PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -m pytest -p no:cacheprovider -ra
# Debian releases of the system tests; the host's own when empty. CI: RELEASES="bookworm trixie"
RELEASES =
RELEASE_OPTIONS = $(RELEASES:%=--release=%)
SUITES = tests/test_lint.py $(wildcard tests/unit tests/process tests/fuzz tests/package) \
	tests/test_oldest_python.py tests/system
DEB = $(wildcard dist/python3-multibinder_*_all.deb)

help:
	@echo 'make demo    install it here, start an instance, reload it under load'
	@echo 'make check   linters and unit tests: seconds'
	@echo 'make test    every test; RELEASES="bullseye bookworm trixie sid" for more than this release'
	@echo 'make bench   the figures, and the long survival test beside haproxy.service'
	@echo 'make deb     the package, in dist/'
	@echo 'make repo    an apt repository, in dist/repo'
	@echo 'make clean'

check:
	@tests/prepare check
	$(PYTEST) -q tests/test_lint.py $(wildcard tests/unit)

test:
	@tests/prepare test
	$(PYTEST) -v --durations=10 $(RELEASE_OPTIONS) $(SUITES)

demo:
	@tests/prepare demo
	@$(PYTHON) tests/demo.py

bench:
	@tests/prepare test
	$(PYTHON) tests/bench/run.py $(RELEASE_OPTIONS)

deb:
	@tests/prepare build
	$(PYTHON) tests/build_deb.py dist

repo: deb
	$(PYTHON) debian/repository.py dist

clean:
	rm -rf dist .venv .pytest_cache .hypothesis .pybuild build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help check test demo bench deb repo clean
