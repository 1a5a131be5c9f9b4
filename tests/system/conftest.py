"""Fixtures of the system tests: the package, built once, and machines with systemd into which it goes.

`release`   the Debian release; a test that uses it (or a machine) runs once for each --release
`deb`       path of the package under test
`bare`      a fresh container in which the package lies but is not installed; one for each test
`machine`   a container with the package installed and haproxy's own service off; one for each module

A machine of a failed test shows its journal. Where no container can be made the tests are skipped with the
reason, or fail with it when MULTIBINDER_TESTS_MUST_RUN is set, as CI does.
"""

import glob
import os
import shutil
import subprocess
import sys
import tempfile

import pytest

import container

HERE = os.path.dirname(os.path.abspath(__file__))
PROJECT = os.path.dirname(os.path.dirname(HERE))
DEB_DIRECTORY = '/root/multibinder'
_reason = []


def pytest_generate_tests(metafunc):
    if 'release' in metafunc.fixturenames:
        releases = metafunc.config.getoption('--release') or [container.host_release() or 'bookworm']
        metafunc.parametrize('release', releases, scope='session', indirect=True)


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
    return build_deb(str(tmp_path_factory.mktemp('deb')))


def build_deb(directory):
    """Builds the package from a copy of the tree below `directory`; gives the path of the .deb."""
    container._say('building the package')
    source = os.path.join(directory, 'source')
    copy_tree(source)
    # Not the caller's PATH: a python3 of pyenv or of a virtual environment must not get into the build.
    environment = {
        'PATH': '/usr/sbin:/usr/bin:/sbin:/bin', 'HOME': directory, 'LANG': 'C.UTF-8',
        'DEB_BUILD_OPTIONS': 'nocheck', 'DEB_BUILD_MAINT_OPTIONS': 'hardening=+all',
    }
    build = subprocess.Popen(
        ['dpkg-buildpackage', '-us', '-uc', '-b'], cwd=source, env=environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    out, _ = build.communicate()
    found = glob.glob(os.path.join(directory, 'python3-multibinder_*_all.deb'))
    if build.returncode != 0 or len(found) != 1:
        raise AssertionError('the package cannot be built:\n' + out.decode('utf-8', 'replace')[-6000:])
    return found[0]


def copy_tree(target):
    """Copies the project, without what git ignores, to a new directory."""
    listing = subprocess.Popen(
        ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
        cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    out, _ = listing.communicate()
    if listing.returncode != 0:
        # Not a clone: an unpacked source package.
        shutil.copytree(PROJECT, target, ignore=shutil.ignore_patterns('.git', '.venv', '__pycache__', '.pybuild'))
        return
    for name in sorted(set(os.fsdecode(name) for name in out.split(b'\0') if name)):
        source = os.path.join(PROJECT, name)
        if not os.path.lexists(source):
            # Removed in the work tree and not yet in the index.
            continue
        os.makedirs(os.path.dirname(os.path.join(target, name)), exist_ok=True)
        shutil.copy2(source, os.path.join(target, name), follow_symlinks=False)


def newer_deb(deb, directory):
    """The same package with a higher version, for tests of an upgrade; gives its path."""
    unpacked = tempfile.mkdtemp(dir=directory)
    subprocess.check_call(['dpkg-deb', '-R', deb, unpacked])
    control = os.path.join(unpacked, 'DEBIAN', 'control')
    with open(control) as stream:
        lines = stream.read().splitlines()
    lines = [line + '+upgrade1' if line.startswith('Version:') else line for line in lines]
    with open(control, 'w') as stream:
        stream.write('\n'.join(lines) + '\n')
    path = os.path.join(directory, 'python3-multibinder_upgrade_all.deb')
    subprocess.check_call(['dpkg-deb', '--root-owner-group', '-b', unpacked, path], stdout=subprocess.DEVNULL)
    shutil.rmtree(unpacked)
    return path


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
        report.sections.append(('journal', machine.journal('-n', '150')))
        report.sections.append(('units', machine.run(
            'systemctl --no-pager status multibinder "haproxy-multi@*"; ss -ltnp; ls -la /etc/haproxy', check=False).out))
    except Exception as error:  # A machine that is gone must not hide why the test failed.
        report.sections.append(('journal', 'cannot be read: %s' % error))


sys.path.insert(0, HERE)
