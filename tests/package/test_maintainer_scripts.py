"""The maintainer scripts: POSIX, every verb, and what they do to /etc/default/multibinder."""

import os
import re
import shutil

import pytest

import package

FILES = [package.PREFIX + name for name in package.MAINTAINER_SCRIPTS] + [
    'debian/needrestart/restart.d/multibinder.service']
BEGIN = '# --- The live file. Word for word the same in config and postinst ---\n'
END = '# --- The live file, end ---\n'
TEMPLATE = 'etc/default/multibinder'


def block(name):
    return package.text(package.PREFIX + name).split(BEGIN)[1].split(END)[0]


@pytest.mark.parametrize('name', FILES)
def test_is_posix_shell_and_stops_at_errors(name):
    lines = package.text(name).splitlines()
    assert lines[0] == '#!/bin/sh'
    assert 'set -e' in lines or 'exec ' in lines[-1]
    assert package.run(['/bin/sh', '-n', package.path(name)])[0] == 0


@pytest.mark.parametrize('name', FILES)
def test_shellcheck(name):
    if not shutil.which('shellcheck'):
        pytest.skip('shellcheck is not installed')
    # SC1091: debconf's confmodule is not ours. SC2030, SC2031: the subshell is meant.
    status, out = package.run(['shellcheck', '--shell=sh', '--exclude=SC1091,SC2030,SC2031', package.path(name)])
    assert status == 0, out


@pytest.mark.parametrize('name, verbs', [
    ('postinst', 'configure triggered abort-upgrade abort-remove abort-deconfigure'),
    ('prerm', 'remove upgrade deconfigure failed-upgrade'),
    ('postrm', 'purge remove upgrade failed-upgrade abort-install abort-upgrade disappear'),
])
def test_every_verb_of_policy_is_known_and_others_are_refused(name, verbs, tmp_path):
    source = package.text(package.PREFIX + name)
    labels = re.findall(r'^    ([a-z-]+(?: \| [a-z-]+)*)\)$', source, re.MULTILINE)
    assert sorted(' | '.join(labels).split(' | ')) == sorted(verbs.split())
    status, out = package.run(['/bin/sh', package.path(package.PREFIX + name), 'no-such-verb'])
    assert status != 0 and "unknown argument 'no-such-verb'" in out


def test_debconf_is_left_before_anything_is_started():
    source = package.text(package.PREFIX + 'postinst')
    assert source.index('db_stop') < source.index('#DEBHELPER#')
    assert source.count('#DEBHELPER#') == 1


def test_an_upgrade_never_stops_the_binder():
    rules = package.text('debian/rules')
    assert 'dh_installsystemd --no-stop-on-upgrade multibinder.service' in rules


def test_config_and_postinst_share_one_parser():
    assert block('config') == block('postinst')


# -- the live file, as it is read ---------------------------------------------------------------------

def shell(script, *arguments):
    status, out = package.run(['/bin/sh', '-ec', script, 'test'] + list(arguments))
    return status, out


def live_socket(file):
    """What the parser says: the path, or None."""
    status, out = shell(block('postinst') + 'LIVE=$1\nlive_socket', str(file))
    assert status in (0, 1), out
    return out[:-1] if status == 0 else None


def write(tmp_path, content):
    file = tmp_path / 'multibinder'
    file.write_bytes(content)
    return file


READ = [
    (b'MULTIBINDER_SOCK=/run/a\n', '/run/a'),
    (b'MULTIBINDER_SOCK=/run/a', '/run/a'),
    (b'MULTIBINDER_SOCK=/run/a\r\nOTHER=1\r\n', '/run/a'),
    (b'  MULTIBINDER_SOCK = /run/a  \n', '/run/a'),
    (b'MULTIBINDER_SOCK="/run/a"\n', '/run/a'),
    (b"MULTIBINDER_SOCK='/run/a'\r\n", '/run/a'),
    (b'MULTIBINDER_SOCK=/run/a\nMULTIBINDER_SOCK=/run/b\n', '/run/b'),
    (b'MULTIBINDER_SOCK=/run/a\n#MULTIBINDER_SOCK=/run/b\n;MULTIBINDER_SOCK=/run/c\n', '/run/a'),
    (b'MULTIBINDER_SOCK=\n', ''),
    (b'MULTIBINDER_SOCK=""\n', ''),
    (b'#MULTIBINDER_SOCK=/run/a\n', None),
    (b'', None),
    (b'\xff\xfe caf\xe9\nMULTIBINDER_SOCK=/run/a\n', '/run/a'),
    (b'MULTIBINDER_SOCKET=/run/a\nXMULTIBINDER_SOCK=/run/b\n', None),
    # A backslash joins lines, so that this assigns to A only; in a comment it does not.
    (b'A=1\\\nMULTIBINDER_SOCK=/run/a\n', None),
    (b'# A\\\nMULTIBINDER_SOCK=/run/a\n', '/run/a'),
    (b'MULTIBINDER_SOCK=/run/\\\na\n', '/run/a'),
    # Never run as a program.
    (b'MULTIBINDER_SOCK=$(touch /tmp/x)\n', '$(touch /tmp/x)'),
]


@pytest.mark.parametrize('content, expected', READ)
def test_reads_as_systemd_does(tmp_path, content, expected):
    assert live_socket(write(tmp_path, content)) == expected


def test_no_file_names_no_socket(tmp_path):
    assert live_socket(tmp_path / 'away') is None


# -- and as it is written -----------------------------------------------------------------------------

def functions():
    """The functions of postinst, without what it does with them."""
    source = package.text(package.PREFIX + 'postinst')
    return source[source.index(BEGIN):source.index('\ncase "$1" in\n')]


def write_socket(file, value):
    return shell(functions() + 'LIVE=$1 TEMPLATE=$3\nwrite_socket "$2"', str(file), value, package.path(TEMPLATE))


NEW = '/run/n&w|1.sock'
WRITTEN = [
    (b'MULTIBINDER_SOCK=/run/a\n', b'MULTIBINDER_SOCK=%s\n'),
    (b'# caf\xe9\nMULTIBINDER_SOCK=/run/a', b'# caf\xe9\nMULTIBINDER_SOCK=%s'),
    (b'A=1\r\nMULTIBINDER_SOCK=/run/a\r\nB=2\r\n', b'A=1\r\nMULTIBINDER_SOCK=%s\r\nB=2\r\n'),
    (b'MULTIBINDER_SOCK="/run/a" \n', b'MULTIBINDER_SOCK="%s" \n'),
    (b"\tMULTIBINDER_SOCK = '/run/a'\n", b"\tMULTIBINDER_SOCK = '%s'\n"),
    (b'MULTIBINDER_SOCK=\n\n', b'MULTIBINDER_SOCK=%s\n\n'),
    (b'MULTIBINDER_SOCK=/run/a\n#x\nMULTIBINDER_SOCK=/run/b\n', b'MULTIBINDER_SOCK=/run/a\n#x\nMULTIBINDER_SOCK=%s\n'),
    (b'#MULTIBINDER_SOCK=/run/a\n', b'#MULTIBINDER_SOCK=/run/a\nMULTIBINDER_SOCK=%s\n'),
    (b'#MULTIBINDER_SOCK=/run/a', b'#MULTIBINDER_SOCK=/run/a\nMULTIBINDER_SOCK=%s\n'),
    (b'A=1\\\n', b'A=1\\\n\nMULTIBINDER_SOCK=%s\n'),
    (b'', b'MULTIBINDER_SOCK=%s\n'),
]


@pytest.mark.parametrize('before, after', WRITTEN)
def test_writes_one_value_and_keeps_every_other_byte(tmp_path, before, after):
    file = write(tmp_path, before)
    os.chmod(str(file), 0o640)
    for _ in range(2):      # the second time nothing is left to be done
        status, out = write_socket(file, NEW)
        assert (status, out) == (0, '')
        assert file.read_bytes() == after.replace(b'%s', NEW.encode())
    assert live_socket(file) == NEW
    assert os.stat(str(file)).st_mode & 0o777 == 0o640
    assert os.listdir(str(tmp_path)) == ['multibinder']


def test_makes_the_file_from_its_template(tmp_path):
    file = tmp_path / 'multibinder'
    assert write_socket(file, '/run/x.sock') == (0, '')
    expected = package.text(TEMPLATE).replace('MULTIBINDER_SOCK=/run/multibinder.sock', 'MULTIBINDER_SOCK=/run/x.sock')
    assert file.read_text() == expected
    assert os.stat(str(file)).st_mode & 0o777 == 0o644


def test_follows_a_link_and_leaves_it_one(tmp_path):
    real = write(tmp_path, b'MULTIBINDER_SOCK=/run/a\n')
    link = tmp_path / 'link'
    link.symlink_to(real)
    assert write_socket(link, '/run/b') == (0, '')
    assert link.is_symlink() and real.read_bytes() == b'MULTIBINDER_SOCK=/run/b\n'


def test_a_file_that_it_does_not_understand_stays_as_it_is(tmp_path):
    # Two strings in one value: systemd joins them, the parser does not pretend to.
    content = b'MULTIBINDER_SOCK="/run/a"b\n'
    file = write(tmp_path, content)
    status, out = write_socket(file, '/run/new')
    assert status == 1 and 'set it by hand' in out
    assert file.read_bytes() == content
    assert os.listdir(str(tmp_path)) == ['multibinder']


@pytest.mark.parametrize('path, usable', [
    ('/run/multibinder.sock', True), ('/srv/a/b.sock', True), ('/run/' + 'x' * 102, True),
    ('/run/caf\u00e9' + 'x' * 96, True), ('/x', True), ('/run/a#b;c', True),
    ('', False), ('run/x', False), ('/', False), ('/run/', False), ('/run/..', False), ('/run/../etc/x', False),
    ('/run/' + 'x' * 103, False), ('/run/caf\u00e9' + 'x' * 98, False), ('/run/a b', False), ('/run/a\tb', False),
    ('/run/a\nb', False), ('/run/"a"', False), ("/run/'a", False), ('/run/a\\b', False), ('/tmp/x.sock', False),
    ('/etc/x.sock', False), ('/home/a/x.sock', False), ('/root/x', False), ('/run/user/0/x', False), ('@x', False),
])
def test_which_paths_can_be_used(path, usable):
    status, out = shell(block('config') + 'usable_socket "$1"', path)
    assert (status == 0) is usable, out


def test_the_built_in_default_is_one():
    from multibinder.client import DEFAULT_SOCKET
    assert re.search(r'^BUILTIN=(.*)$', block('config'), re.MULTILINE).group(1) == DEFAULT_SOCKET
    assert 'Default: %s\n' % DEFAULT_SOCKET in package.text(package.PREFIX + 'templates')
    assert 'MULTIBINDER_SOCK=%s\n' % DEFAULT_SOCKET in package.text(TEMPLATE)
    for name in ('multibinder.service', 'haproxy-multi@.service'):
        assert 'Environment=MULTIBINDER_SOCK=%s ' % DEFAULT_SOCKET in package.text('systemd/' + name)


def test_purge_knows_a_rendered_config_by_the_mark_that_is_written():
    from multibinder.haproxy.config import MARK
    assert "'^%s'" % MARK in package.text(package.PREFIX + 'postrm')


def test_the_shipped_defaults_are_what_the_programs_assume():
    from multibinder.commands.binder import DEFAULT_LINGER
    assert '#MULTIBINDER_LINGER=%g\n' % DEFAULT_LINGER in package.text(TEMPLATE)
