"""What all tests share: the project on sys.path, and where tests may run."""

import os
import sys

TESTS = os.path.dirname(os.path.abspath(__file__))
PROJECT = os.path.dirname(TESTS)

# The source tree, unless the installed package is what is to be tested (the package's own tests do that).
if not os.environ.get('MULTIBINDER_TEST_INSTALLED'):
    sys.path.insert(0, PROJECT)


def pytest_addoption(parser):
    group = parser.getgroup('multibinder')
    group.addoption(
        '--release', action='append', default=[], metavar='NAME',
        help="Debian release for the system tests (bullseye, bookworm, trixie, sid); may be given several times; "
             "the host's own by default")
    group.addoption('--deb', help='package to test in the containers (built from this tree by default)')
    group.addoption(
        '--long', action='store_true', help='survival tests with a longer load (what `make bench` uses)')
