"""The package as it is built: the same to the byte wherever that happens, clean for lintian, in an apt
repository, and by pip."""

import glob
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile

import pytest

import build_deb
import package

TOOLS = ('dpkg-buildpackage', 'dh', 'dh_python3', 'debconf-updatepo')


def need(*tools):
    missing = [tool for tool in tools if not shutil.which(tool)]
    if missing:
        pytest.skip('not installed: ' + ' '.join(missing))


def build(directory, tree, full=False, umask=0o022, **variables):
    """Builds from a copy of a tree; returns the directory with what was made."""
    need(*TOOLS)
    source = os.path.join(directory, 'source')
    shutil.copytree(tree, source, symlinks=True)
    environment = {'PATH': '/usr/sbin:/usr/bin:/sbin:/bin', 'HOME': directory, 'LANG': 'C.UTF-8',
                   'DEB_BUILD_OPTIONS': 'nocheck'}
    environment.update(variables)
    process = subprocess.Popen(
        ['dpkg-buildpackage', '-us', '-uc'] + ([] if full else ['-b']), cwd=source, env=environment,
        preexec_fn=lambda: os.umask(umask), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    out, _ = process.communicate()
    assert process.returncode == 0, out.decode('utf-8', 'replace')[-4000:]
    return directory


@pytest.fixture(scope='module')
def tree():
    """The project as it is now, without what git ignores: it may be edited while the tests run."""
    with tempfile.TemporaryDirectory(prefix='multibinder-tree.') as directory:
        build_deb.copy_tree(os.path.join(directory, 'tree'))
        yield os.path.join(directory, 'tree')


@pytest.fixture(scope='module')
def built(tree):
    """A directory with source and binary package."""
    with tempfile.TemporaryDirectory(prefix='multibinder-deb.') as directory:
        yield build(os.path.join(directory, 'first'), tree, full=True)


def the_deb(directory):
    found = glob.glob(os.path.join(directory, '*.deb'))
    assert len(found) == 1
    return found[0]


def sha256(path):
    with open(path, 'rb') as stream:
        return hashlib.sha256(stream.read()).hexdigest()


def test_two_builds_are_the_same_to_the_byte(built, tree):
    with tempfile.TemporaryDirectory(prefix='multibinder-deb.') as directory:
        other = build(os.path.join(directory, 'another-and-longer-path'), tree, full=True, umask=0o077,
                      TZ='Pacific/Kiritimati', HOME='/nonexistent', LANG='C', LC_ALL='C', USER='somebody')
        for pattern in ('*.deb', '*.tar.xz'):
            one, two = [glob.glob(os.path.join(where, pattern)) for where in (built, other)]
            assert len(one) == len(two) == 1
            assert sha256(one[0]) == sha256(two[0]), pattern


def test_nothing_is_left_of_a_build_after_clean(built, tree):
    source = os.path.join(built, 'source')
    status, out = package.run(['debian/rules', 'clean'], cwd=source)
    assert status == 0, out
    listing = [set(package.run(['find', '.', '-type', 'f'], cwd=where)[1].split('\n')) for where in (source, tree)]
    assert listing[0] - listing[1] == set()


def test_members_can_be_read_by_an_old_dpkg(built):
    assert package.run(['ar', 't', the_deb(built)])[1].split() == ['debian-binary', 'control.tar.xz', 'data.tar.xz']


def test_lists_every_file_where_it_belongs(built, tree):
    out = package.run(['dpkg-deb', '--contents', the_deb(built)])[1]
    names = [line.split(None, 5)[5].split(' -> ')[0][1:] for line in out.splitlines()]
    files = [name for name in names if not name.endswith('/')]
    allowed = ('/lib/systemd/system/', '/usr/bin/', '/usr/lib/python3/dist-packages/multibinder', '/usr/share/',
               '/etc/needrestart/')
    assert [name for name in files if not name.startswith(allowed)] == []
    assert sorted(name for name in files if name.startswith('/usr/bin/')) == [
        '/usr/bin/' + name for name in package.executables()]
    for name in package.text(package.PREFIX + 'manpages').split():
        page = os.path.basename(name)
        assert '/usr/share/man/man{}/{}.gz'.format(page[-1], page) in files
    modules = [os.path.join(directory, name)[len(tree):]
               for directory, _, found in os.walk(os.path.join(tree, 'multibinder')) for name in found if name.endswith('.py')]
    assert sorted('/usr/lib/python3/dist-packages' + name for name in modules) == sorted(
        name for name in files if name.endswith('.py'))
    assert all('root/root' in line for line in out.splitlines())
    assert not [name for name in files if name.endswith('.pyc') or '/tests/' in name]


def test_conffiles_are_those_of_needrestart_only(built):
    # /etc/default/multibinder is made by the postinst, since debconf changes it.
    out = package.run(['dpkg-deb', '--info', the_deb(built), 'conffiles'])[1]
    assert sorted(out.split()) == ['/etc/needrestart/conf.d/multibinder.conf',
                                   '/etc/needrestart/restart.d/multibinder.service']


def test_interpreter_is_that_of_the_system(built):
    directory = tempfile.mkdtemp(dir=built)
    package.run(['dpkg-deb', '--extract', the_deb(built), directory])
    for name in package.executables():
        with open(os.path.join(directory, 'usr/bin', name)) as stream:
            assert stream.readline() == '#!/usr/bin/python3\n'


def test_lintian(built):
    need('lintian')
    changes = glob.glob(os.path.join(built, '*.changes'))
    status, out = package.run(['lintian', '--pedantic', '--display-info', '--profile=debian', '--allow-root'] + changes)
    if 'Unknown option: allow-root' in out:
        status, out = package.run(['lintian', '--pedantic', '--display-info', '--profile=debian'] + changes)
    # A newer lintian wants a newer Standards-Version than the release has that builds the package.
    tags = [line for line in out.splitlines() if line[:2] in ('E:', 'W:', 'I:', 'P:')
            and 'out-of-date-standards-version' not in line]
    assert tags == [], out


def test_every_override_has_its_reason():
    for name in (package.PREFIX + 'lintian-overrides', 'debian/source/lintian-overrides'):
        commented = False
        for line in package.text(name).splitlines():
            if ': ' in line and not line.startswith('#') and 'multibinder' in line.split(':')[0]:
                assert commented, line
            else:
                commented = line.startswith('#')
            if line.startswith(('python3-multibinder:', 'multibinder source:')):
                commented = True


def test_repository(built):
    need('apt-ftparchive', 'gpg', 'gpgv')
    status, out = package.run([sys.executable, package.path('debian/repository.py'), built])
    assert status == 0, out
    repo = os.path.join(built, 'repo')
    keyring = os.path.join(repo, 'multibinder-archive-keyring.gpg')
    for signed in (['InRelease'], ['Release.gpg', 'Release']):
        status, out = package.run(['gpgv', '--keyring', keyring] + [os.path.join(repo, name) for name in signed])
        assert status == 0 and 'Good signature' in out, out
    with open(os.path.join(repo, 'Packages')) as stream:
        assert 'SHA256: {}\n'.format(sha256(the_deb(built))) in stream.read()
    # A second time, over the first.
    assert package.run([sys.executable, package.path('debian/repository.py'), built])[0] == 0
    assert glob.glob(os.path.join(built, '.repo.*')) == []


def test_repository_without_packages_is_refused(tmp_path):
    need('apt-ftparchive', 'gpg')
    status, out = package.run([sys.executable, package.path('debian/repository.py'), str(tmp_path)])
    assert status == 1 and 'there is no .deb' in out
    assert os.listdir(str(tmp_path)) == []


def test_installed_by_name_from_the_repository(built, machine_without):
    need('apt-ftparchive', 'gpg')
    target = os.path.join(built, 'by-name')
    status, out = package.run([sys.executable, package.path('debian/repository.py'), built, target])
    assert status == 0, out
    machine = machine_without
    machine.run(['mkdir', '-p', '/srv/repo'])
    for name in os.listdir(target):
        machine.put_file(os.path.join(target, name), '/srv/repo/' + name)
    machine.run("sed 's,%s,/srv/repo,g' /srv/repo/multibinder.list >/etc/apt/sources.list.d/multibinder.list && "
                'rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*.sources' % target)
    # Offline: what it depends on is there already.
    machine.run('apt-get -q update && apt-get -q -y --no-install-recommends install python3-multibinder', timeout=120)
    assert machine.out('systemctl is-active multibinder') == 'active'
    assert 'Listening for binds' in machine.journal('-u', 'multibinder')


def test_pip_installs_library_and_commands():
    with tempfile.TemporaryDirectory(prefix='multibinder-pip.') as directory:
        source = os.path.join(directory, 'source')
        build_deb.copy_tree(source)
        venv = os.path.join(directory, 'venv')
        environment = {'PATH': '/usr/bin:/bin', 'HOME': directory, 'LANG': 'C.UTF-8'}
        status, out = package.run([package.PYTHON, '-m', 'venv', '--system-site-packages', venv], env=environment)
        if status != 0:
            pytest.skip('no venv: ' + out[-200:])
        # Without an index: setuptools and the dependencies are those of the system.
        status, out = package.run([venv + '/bin/pip', 'install', '-q', '--no-index', '--no-build-isolation', '.'],
                                  cwd=source, env=environment)
        assert status == 0, out
        status, out = package.run([venv + '/bin/python', '-c', 'import multibinder; print(multibinder.__file__)'],
                                  cwd=directory, env=environment)
        assert out.startswith(venv), out
        version = package.setup_cfg()['metadata']['version']
        for name in package.executables():
            status, out = package.run([os.path.join(venv, 'bin', name), '--version'], cwd=directory, env=environment)
            assert (status, out.split()) == (0, [name, version]), out
