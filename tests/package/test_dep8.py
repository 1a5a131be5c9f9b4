"""The tests of debian/tests, each in a fresh machine with systemd into which the package is installed.

autopkgtest runs the same scripts on Debian's own machines.
"""

import os
import re

import pytest

import package

ENVIRONMENT = {'MULTIBINDER_DEB': '/root/multibinder.deb', 'AUTOPKGTEST_TMP': '/tmp', 'PYTHONDONTWRITEBYTECODE': '1'}
LIMIT = 300
# Debian 11 has no python3-hypothesis in the machine; unit runs on the host's own Python anyway.
ELSEWHERE = {'unit'}


def stanzas():
    """{test: its fields} of debian/tests/control."""
    found = {}
    for block in package.text('debian/tests/control').strip().split('\n\n'):
        fields = dict(line.split(': ', 1) for line in block.splitlines() if not line.startswith('#'))
        for name in fields['Tests'].split(', '):
            found[name] = fields
    return found


TESTS = stanzas()


def test_every_test_is_there_and_can_be_run():
    files = set(name for name in os.listdir(package.path('debian/tests')) if os.access(
        package.path('debian/tests/' + name), os.X_OK) and not os.path.isdir(package.path('debian/tests/' + name)))
    assert files == set(TESTS)


@pytest.mark.parametrize('name', sorted(TESTS))
def test_restrictions_say_what_a_test_needs(name):
    restrictions = TESTS[name]['Restrictions'].split(', ')
    if 'testbed' in package.text('debian/tests/' + name):
        assert {'isolation-container', 'needs-root', 'skippable'} <= set(restrictions)


@pytest.mark.parametrize('name', sorted(set(TESTS) - ELSEWHERE))
def test_passes(name, bare):
    result = bare.run(['/root/source/debian/tests/' + name], check=False, timeout=LIMIT, env=ENVIRONMENT)
    assert result.status == 0, result.out[-12000:] + result.err[-4000:]
    assert re.search(r'^-- passed$', result.out, re.MULTILINE)
