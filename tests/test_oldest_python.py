"""The unit tests once more, on the oldest CPython from 3.5 on that this machine has."""

import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys

import pytest

TESTS = os.path.dirname(os.path.abspath(__file__))
INSTALL_SECONDS = 180
REQUIREMENTS = os.path.join(TESTS, 'requirements-oldest.txt')


def interpreters():
    """[((major, minor), path)] of every CPython on PATH and of every one that pyenv has."""
    patterns = [os.path.join(directory, 'python3.[0-9]*') for directory in os.environ.get('PATH', '').split(':')]
    if shutil.which('pyenv'):
        root = subprocess.check_output(['pyenv', 'root']).decode().strip()
        patterns.append(os.path.join(root, 'versions', '*', 'bin', 'python3.[0-9]*'))
    found = {}
    for pattern in patterns:
        for path in glob.glob(pattern):
            if re.search(r'/python3\.\d+$', path):
                # A shim of a version that is not active is on PATH, too, and fails.
                probe = subprocess.Popen(
                    [path, '-c', 'import sys, venv, ensurepip; print(*sys.version_info[:2])'],
                    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
                out, _ = probe.communicate()
                if probe.returncode == 0:
                    found.setdefault(tuple(int(part) for part in out.split()), path)
    return sorted((version, path) for version, path in found.items() if version >= (3, 5))


def environment_of(path, version):
    """A virtual environment of that interpreter with the requirements, made once; gives its python."""
    with open(REQUIREMENTS, 'rb') as stream:
        key = hashlib.sha256(stream.read() + os.path.realpath(path).encode()).hexdigest()[:8]
    cache = os.path.join(os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache'), 'multibinder-tests')
    target = os.path.join(cache, 'python%d.%d-%s' % (version + (key,)))
    python = os.path.join(target, 'bin', 'python3')
    if not os.path.exists(os.path.join(target, 'complete')):
        shutil.rmtree(target, ignore_errors=True)
        os.makedirs(cache, exist_ok=True)
        subprocess.check_call([path, '-m', 'venv', target])
        try:
            subprocess.check_call(
                [python, '-m', 'pip', 'install', '-q', '--no-deps', '-r', REQUIREMENTS], timeout=INSTALL_SECONDS)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            pytest.skip('Python %d.%d cannot be given its modules: %s' % (version + (error,)))
        open(os.path.join(target, 'complete'), 'w').close()
    return python


def test_unit_tests_on_the_oldest_python():
    candidates = interpreters()
    if not candidates or candidates[0][0] >= sys.version_info[:2]:
        pytest.skip('no CPython from 3.5 on at hand that is older than this %d.%d' % sys.version_info[:2])
    version, path = candidates[0]
    python = environment_of(path, version)
    sys.stderr.write('unit tests on Python %d.%d\n' % version)
    process = subprocess.Popen(
        [python, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', os.path.join(TESTS, 'unit')],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=dict(os.environ, PYTHONDONTWRITEBYTECODE='1'))
    out, _ = process.communicate()
    words = out.decode('utf-8', 'replace')
    sys.stderr.write(words[-300:])
    assert process.returncode == 0, words[-8000:]
