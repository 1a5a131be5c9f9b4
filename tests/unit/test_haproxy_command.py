"""haproxy's command line: every spelling that units in the field have."""

import os

import pytest

from multibinder.errors import HaproxyError, UsageError
from multibinder.haproxy.command import Binary, Command, Version, parse_version

NEW = Version('2.6.12-1+deb12u4')
OLD = Version('1.7.5')
NO_SYSTEMD = Version('2.4.0', notifies=False)

VV_26 = """HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/
Status: long-term supported branch
Build options :
  OPTIONS = USE_PCRE2=1 USE_SYSTEMD=1
Feature list : +EPOLL +SYSTEMD -ZLIB
"""
VV_26_WITHOUT = """HAProxy version 2.6.0 2022/05/31
Build options :
  OPTIONS = USE_PCRE2=1
Feature list : +EPOLL -SYSTEMD -ZLIB
"""
VV_22 = 'HA-Proxy version 2.2.9-2+deb11u6 2023/12/23 - https://haproxy.org/\n  OPTIONS = USE_SYSTEMD=1\n'
VV_18 = 'HA-Proxy version 1.8.0 2017/11/26\nBuild options :\n  OPTIONS = USE_LINUX_TPROXY=1 USE_SYSTEMD=1\n'
VV_32 = 'HAProxy version 3.2.0-e134140 2025/05/28\nBuild options :\n  OPTIONS =\nFeature list : +EPOLL\n'
VV_16 = 'HA-Proxy version 1.6.3 2015/12/25\nBuild options :\n  OPTIONS = USE_ZLIB=1\n'


@pytest.mark.parametrize('output, numbers, mode, master_cli', [
    (VV_26, (2, 6, 12), ['-Ws'], True),
    (VV_26_WITHOUT, (2, 6, 0), ['-W', '-db'], True),
    (VV_22, (2, 2, 9), ['-Ws'], True),
    (VV_18, (1, 8, 0), ['-Ws'], False),
    (VV_32, (3, 2, 0), ['-Ws'], True),
    (VV_16, (1, 6, 3), ['-Ds'], False),
    ('HAProxy version 3.5-dev5 2026/07/01\n', (3, 5), ['-Ws'], True),
    ('HA-Proxy version 1.9-dev0 2017/11/26\n', (1, 9), ['-Ws'], True),
])
def test_versions(output, numbers, mode, master_cli):
    version = parse_version(output)
    assert (version.numbers, version.mode, version.has_master_cli) == (numbers, mode, master_cli)


def test_no_version():
    assert parse_version('bash: haproxy: command not found') is None


def run(text, version=NEW, replaced=None, extra=()):
    return Command(text.split()).supervised(version, replaced or {}, extra)


@pytest.mark.parametrize('given, run_as', [
    ('haproxy -Ws -f /a.cfg -p /a.pid', 'haproxy -Ws -f /a.cfg -p /a.pid'),
    ('haproxy -Ds -f /a.cfg -p /a.pid', 'haproxy -Ws -f /a.cfg -p /a.pid'),
    ('haproxy -f /a.cfg -D', 'haproxy -Ws -f /a.cfg'),
    ('haproxy -W -db -f /a.cfg', 'haproxy -Ws -f /a.cfg'),
    ('haproxy -db -f /a.cfg', 'haproxy -Ws -f /a.cfg'),
    ('haproxy -f /a.cfg', 'haproxy -Ws -f /a.cfg'),
    ('haproxy -f /a.cfg -f /b.cfg', 'haproxy -Ws -f /a.cfg -f /b.cfg'),
    ('haproxy -f /a.cfg -- /b.cfg /c.cfg', 'haproxy -Ws -f /a.cfg -f /b.cfg -f /c.cfg'),
    ('haproxy -f /a.cfg -sf 12 13', 'haproxy -Ws -f /a.cfg'),
    ('haproxy -f /a.cfg -st 12 -q', 'haproxy -Ws -f /a.cfg -q'),
    ('haproxy -f /a.cfg -S /m.sock -n 5 -m 6 -N 7 -L x -x /y.sock -dM -V',
     'haproxy -Ws -f /a.cfg -S /m.sock -n 5 -m 6 -N 7 -L x -x /y.sock -dM -V'),
    ('ip netns exec blue /sbin/haproxy -f /a.cfg', 'ip netns exec blue /sbin/haproxy -Ws -f /a.cfg'),
    ('haproxy -C /etc -f a.cfg -p run/a.pid', 'haproxy -Ws -C /etc -f /etc/a.cfg -p /etc/run/a.pid'),
])
def test_supervised(given, run_as):
    assert run(given) == run_as.split()


def test_relative_paths_are_of_the_present_directory():
    assert run('haproxy -f a.cfg') == ['haproxy', '-Ws', '-f', os.path.join(os.getcwd(), 'a.cfg')]


def test_template_is_replaced_and_ours_comes_last():
    assert run('haproxy -f /a.cfg.erb -q', replaced={'/a.cfg.erb': '/a.cfg'}, extra=['-S', 'fd@4']) == \
        'haproxy -Ws -f /a.cfg -q -S fd@4'.split()


@pytest.mark.parametrize('version, expected', [(OLD, ['-Ds']), (NO_SYSTEMD, ['-W', '-db']), (NEW, ['-Ws'])])
def test_mode_by_version(version, expected):
    assert run('haproxy -Ws -f /a.cfg', version)[1:-2] == expected


@pytest.mark.parametrize('given, version, words', [
    ('haproxy -Ws -f /a', NEW, []),
    ('haproxy -f /a', NEW, []),
    ('haproxy -Ds -f /a', OLD, []),
    ('haproxy -W -db -f /a', NO_SYSTEMD, []),
    ('haproxy -Ds -f /a', NEW, ['takes -Ds for -D']),
    ('haproxy -D -f /a', NEW, ['in place of -D']),
    ('haproxy -Ws -f /a', OLD, ['run with -Ds in place of -Ws']),
    ('haproxy -Ws -f /a -sf 1', NEW, ['-sf 1 is left out']),
])
def test_notes(given, version, words):
    notes = Command(given.split()).notes(version)
    assert len(notes) == len(words)
    assert all(word in note for word, note in zip(words, notes))


@pytest.mark.parametrize('text', ['haproxy', 'haproxy -Ws', '-f /a.cfg', 'haproxy -f', 'haproxy -f /a stray', ''])
def test_wrong_words(text):
    with pytest.raises(UsageError):
        Command(text.split())


@pytest.mark.parametrize('option', ['-c', '-v', '-vv'])
def test_options_that_end_haproxy(option):
    with pytest.raises(UsageError):
        Command(['haproxy', '-f', '/a.cfg', option]).check_supervised()


def test_words_for_a_check():
    command = Command('haproxy -Ws -f /a.cfg -p /a.pid -S /m.sock -x /y -L me -n 5 -sf 1 -C /'.split())
    assert command.checking({'/a.cfg': '/tmp/a.cfg'}) == 'haproxy -c -f /tmp/a.cfg -L me -n 5 -C /'.split()


def test_gem_words_stay_for_erb():
    command = Command('haproxy -Ds -f /a.cfg.erb -p /a.pid -sf 1'.split())
    assert command.unchanged({'/a.cfg.erb': '/a.cfg'}) == 'haproxy -Ds -f /a.cfg -p /a.pid -sf 1'.split()


def write_program(path, version):
    path.write_text('#!/bin/sh\necho "HAProxy version {}"\necho asked >>{}.log\n'.format(version, path))
    path.chmod(0o755)


def test_version_is_asked_again_after_an_upgrade(tmp_path):
    program = tmp_path / 'haproxy'
    write_program(program, '2.2.9')
    binary = Binary([str(program)])
    assert binary.version().text == binary.version().text == '2.2.9'
    assert (tmp_path / 'haproxy.log').read_text() == 'asked\n'
    program.unlink()
    write_program(program, '3.0.11')
    assert binary.version().text == '3.0.11'
    program.unlink()
    with pytest.raises(HaproxyError, match='cannot run .*haproxy: No such file'):
        binary.version()


def test_program_that_is_no_haproxy():
    with pytest.raises(HaproxyError, match='does not say which haproxy it is'):
        Binary(['/bin/true']).version()
