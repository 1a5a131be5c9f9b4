"""`bare`: a machine with the package installed, and with the tests of the package in /root/source;
`machine_without`: one without the package."""

import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(HERE)
sys.path[:0] = [HERE, TESTS, os.path.join(TESTS, 'system')]

import build_deb  # noqa: E402
import container  # noqa: E402


def pytest_generate_tests(metafunc):
    if 'release' in metafunc.fixturenames:
        releases = metafunc.config.getoption('--release') or [container.host_release() or 'bookworm']
        metafunc.parametrize('release', releases, scope='session', indirect=True)


@pytest.fixture(scope='session')
def release(request):
    reason = container.why_not()
    if reason is not None:
        if os.environ.get('MULTIBINDER_TESTS_MUST_RUN'):
            pytest.fail('the tests of the package cannot run: ' + reason)
        pytest.skip('test of the package: ' + reason)
    return request.param


@pytest.fixture(scope='session')
def deb(request, tmp_path_factory):
    given = request.config.getoption('--deb') or os.environ.get('MULTIBINDER_DEB')
    if given:
        return os.path.abspath(given)
    container.progress('building the package')
    return build_deb.build(str(tmp_path_factory.mktemp('deb')))


@pytest.fixture
def bare(release, deb):
    project = os.path.dirname(TESTS)
    with container.Container(release) as machine:
        machine.put_file(deb, '/root/multibinder.deb')
        for directory in ('debian/tests', 'tests/system'):
            machine.run(['mkdir', '-p', '/root/source/' + directory])
            for name in sorted(os.listdir(os.path.join(project, directory))):
                path = os.path.join(project, directory, name)
                if os.path.isfile(path):
                    machine.put_file(path, '/root/source/%s/%s' % (directory, name), os.stat(path).st_mode & 0o777)
        machine.run(['dpkg', '-i', '/root/multibinder.deb'], timeout=120)
        yield machine


@pytest.fixture
def machine_without(release):
    with container.Container(release) as machine:
        yield machine
