"""The linters, run as tests: Python 3.5 is enough, no unused names, shell scripts that hold."""

import glob
import os
import shutil
import subprocess

import pytest

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def python_files(*directories):
    found = []
    for directory in directories:
        for path, _, names in os.walk(os.path.join(PROJECT, directory)):
            found += [os.path.join(path, name) for name in names if name.endswith('.py')]
    return sorted(found)


def scripts():
    """Files of bin/ (Python without the ending)."""
    return sorted(glob.glob(os.path.join(PROJECT, 'bin', '*')))


def run(argv):
    process = subprocess.Popen(argv, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    out, _ = process.communicate()
    assert process.returncode == 0, out.decode('utf-8', 'replace')


def test_python_3_5_is_enough():
    vermin = os.path.join(PROJECT, '.venv', 'bin', 'vermin')
    if not os.path.exists(vermin):
        vermin = shutil.which('vermin')
    if vermin is None:
        if os.environ.get('MULTIBINDER_TESTS_MUST_RUN'):
            pytest.fail('vermin is not installed')
        pytest.skip('vermin is not installed (tests/prepare check installs it)')
    # --violations: say only what is too new, and where.
    run([vermin, '--quiet', '--no-tips', '--target=3.5-', '--violations', '--eval-annotations']
        + python_files('multibinder') + scripts())


def test_no_unused_names():
    flakes = shutil.which('pyflakes3')
    if flakes is None:
        pytest.skip('pyflakes3 is not installed')
    run([flakes] + python_files('multibinder', 'tests') + scripts())


def test_shell_scripts():
    shellcheck = shutil.which('shellcheck')
    if shellcheck is None:
        pytest.skip('shellcheck is not installed')
    run([shellcheck, 'tests/prepare', '.ci/run'])
