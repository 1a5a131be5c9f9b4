"""Fixtures of the system tests: the package, built once, and machines with systemd into which it goes.

`release`   the Debian release; a test that uses it (or a machine) runs once for each --release
`deb`       path of the package under test
`bare`      a fresh container in which the package lies but is not installed; one for each test
`machine`   a container with the package installed and haproxy's own service off; one for each module

A machine of a failed test shows its journal. Where no container can be made the tests are skipped with the
reason, or fail with it when MULTIBINDER_TESTS_MUST_RUN is set, as CI does.
"""

import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]

import build_deb  # noqa: E402
import container  # noqa: E402

DEB_DIRECTORY = '/root/multibinder'
_reason = []


def pytest_generate_tests(metafunc):
    if 'release' in metafunc.fixturenames:
        releases = metafunc.config.getoption('--release') or [container.host_release() or 'bookworm']
        # Interned: pytest compares parameters by identity, and would boot a machine for each test.
        metafunc.parametrize('release', [sys.intern(name) for name in releases], scope='session', indirect=True)


@pytest.fixture(scope='session')
def release(request):
    if not _reason:
        _reason.append(container.why_not())
    if _reason[0] is not None:
        if os.environ.get('MULTIBINDER_TESTS_MUST_RUN'):
            pytest.fail('system tests cannot run: ' + _reason[0])
        pytest.skip('system test: ' + _reason[0])
    return request.param


@pytest.fixture(scope='session')
def deb(request, tmp_path_factory):
    given = request.config.getoption('--deb') or os.environ.get('MULTIBINDER_DEB')
    if given:
        return os.path.abspath(given)
    container.progress('building the package')
    return build_deb.build(str(tmp_path_factory.mktemp('deb')))


def put_deb(machine, deb):
    machine.run(['mkdir', '-p', DEB_DIRECTORY])
    path = os.path.join(DEB_DIRECTORY, os.path.basename(deb))
    machine.put_file(deb, path)
    return path


@pytest.fixture
def bare(request, release, deb):
    with container.Container(release) as machine:
        machine.deb = put_deb(machine, deb)
        request.node.machine = machine
        yield machine


@pytest.fixture(scope='module')
def machine(request, release, deb):
    with container.Container(release) as machine:
        machine.deb = put_deb(machine, deb)
        install(machine)
        yield machine


def install(machine):
    """Installs the package as its reader would, offline, and frees haproxy's own service from its duty."""
    machine.run(['dpkg', '-i', machine.deb], timeout=120)
    machine.run('systemctl disable --now haproxy')
    assert machine.out('systemctl is-active multibinder') == 'active'


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if not report.failed:
        return
    machine = getattr(item, 'funcargs', {}).get('machine') or getattr(item, 'machine', None)
    if machine is None or machine.leader is None:
        return
    try:
        report.sections.append(('journal', machine.journal('-u', 'multibinder', '-u', 'haproxy*', '-n', '120')))
        report.sections.append(('units', machine.run(
            'systemctl --no-pager status multibinder "haproxy-multi@*"; ss -ltnp; ls -la /etc/haproxy', check=False).out))
    except Exception as error:  # A machine that is gone must not hide why the test failed.
        report.sections.append(('journal', 'cannot be read: %s' % error))

