"""An instance with a hand-written config and no template: real wrapper, real haproxy, real binder, under load."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import uuid

import pytest

from adopting import (
    Stock, Traffic, answers, config, ctl, held, keepers, listening, port_nobody_uses, refused,
    version_of)
from running import DEADLINE, Binder, Running, command_of, environment
from wrapper_running import HAPROXY, Files, Wrapper, until

pytestmark = [pytest.mark.skipif(not os.path.exists(HAPROXY), reason='no haproxy here'),
              pytest.mark.skipif(os.geteuid() != 0, reason='takes root')]

RATE = 300
VERSION = version_of(HAPROXY)


@pytest.fixture
def binder():
    with Binder('--linger', '20') as running:
        yield running
        for name in held(running):      # what lingers
            ctl(running, 'release', name)
        assert not keepers(running)


@pytest.fixture
def files():
    files = Files()
    yield files
    assert sorted(os.listdir(files.folder)) in (['foo.cfg'], ['foo.cfg', 'run']), os.listdir(files.folder)
    files.remove()


def write(files, binds, answer='one', extra=''):
    files.write(config(binds, answer, extra), files.config)
    return files.read()


def no_failure(traffic):
    report = traffic.report()
    assert {name: one['failed'] for name, one in report.items()} == dict.fromkeys(report, 0), report


def leased(binder):
    """Return the endpoints that a lease is on."""
    return {name for name, one in held(binder).items() if any(claim['kind'] == 'lease' for claim in one['claims'])}


def test_reload_restart_and_every_crash_under_load(binder, files):
    port, other = port_nobody_uses(), port_nobody_uses(socket.AF_INET6)
    binds = ['127.0.0.1:{}'.format(port), ':::{} v6only'.format(other)]
    targets = {'v4': ('127.0.0.1', port, RATE), 'v6': ('::1', other, RATE)}
    written = write(files, binds)
    with Wrapper(files, binder.path) as wrapper:
        before = listening(port) | listening(other)
        assert {one['inode'] for one in held(binder).values()} == before
        assert leased(binder) == {'tcp 127.0.0.1:{}'.format(port), 'tcp [::]:{}'.format(other)}
        with open('/proc/sys/net/core/somaxconn') as file:
            longest = int(file.read())
        assert {one['backlog'] for one in held(binder).values()} == {longest}, 'and not the maxconn of haproxy'
        with Traffic(None, targets, backend=port_nobody_uses(), timeout=DEADLINE) as traffic:
            traffic.segment('reload')
            for name in ('two', 'three', 'four'):
                written = write(files, binds, name)
                assert wrapper.reload() == (0, '')
                assert answers(port) == answers(other, '::1') == {name}
            no_failure(traffic)

            traffic.segment('restart')
            wrapper.stop()      # told once: the second time, as __exit__ does it, ends what is still being answered
            wrapper.__exit__(None, None, None)
            with Wrapper(files, binder.path) as wrapper:
                no_failure(traffic)
                for victim in ('worker', 'master', 'wrapper'):
                    traffic.segment(victim)
                    killed(wrapper, victim)
                    if victim != 'wrapper':     # which removes nothing when it is killed
                        wrapper.__exit__(None, None, None)
                    wrapper = Wrapper(files, binder.path).__enter__()
                    report = traffic.report()
                    # What the killed process had accepted dies with it; nobody is refused.
                    for one in report.values():
                        assert one['kinds'].get('refused', 0) == one['kinds'].get('timeout', 0) == 0, (victim, report)
                        assert one['failed'] <= (0 if victim == 'wrapper' else 5), (victim, report)
                assert answers(port) == answers(other, '::1') == {'four'}
                assert listening(port) | listening(other) == before, 'the very same sockets, and no others'
                wrapper.__exit__(None, None, None)
    assert files.read() == written, 'nobody but its owner writes a plain config'


def killed(wrapper, victim):
    master = wrapper.serving()
    worker = children(master)[0]
    if victim == 'wrapper':
        wrapper.kill(signal.SIGKILL)
        wrapper.process.wait()
        until(lambda: not os.path.exists('/proc/{}'.format(master)), 'haproxy has finished by itself')
    else:
        os.kill(worker if victim == 'worker' else master, signal.SIGKILL)
        assert wrapper.wait() > 2


def children(pid):
    with open('/proc/{}/task/{}/children'.format(pid, pid)) as file:
        return [int(word) for word in file.read().split()]


def test_a_removed_port_is_refused_and_an_added_one_served(binder, files):
    ports = [port_nobody_uses() for _ in range(3)]
    write(files, ['127.0.0.1:{}'.format(port) for port in ports[:2]])
    with Wrapper(files, binder.path) as wrapper:
        write(files, ['127.0.0.1:{}'.format(port) for port in ports[1:]], 'two')
        assert wrapper.reload() == (0, '')
        assert refused(ports[0])
        assert answers(ports[1]) == answers(ports[2]) == {'two'}
        assert leased(binder) == {'tcp 127.0.0.1:{}'.format(port) for port in ports[1:]}


def test_a_broken_config_changes_nothing(binder, files):
    port = port_nobody_uses()
    write(files, ['127.0.0.1:{}'.format(port)])
    with Wrapper(files, binder.path) as wrapper:
        before, serving = listening(port), wrapper.serving()
        for extra in ('no-such-keyword', 'chroot /nowhere/at/all'):
            write(files, ['127.0.0.1:{}'.format(port)], 'two', extra)
            status, reason = wrapper.reload()
            assert status and 'serves on' in reason
            assert answers(port) == {'one'} and wrapper.serving() == serving
        write(files, ['127.0.0.1:{}'.format(port)], 'three')
        assert wrapper.reload() == (0, '')
        assert answers(port) == {'three'} and listening(port) == before


def test_an_address_that_haproxy_takes_from_nobody(binder, files):
    """From 2.3 on a specific IPv6 address without v6only: each generation binds it anew. A reload under load
    loses nothing all the same, there are no twins, and it is said once."""
    port = port_nobody_uses(socket.AF_INET6)
    write(files, ['::1:{}'.format(port)])
    with Wrapper(files, binder.path) as wrapper:
        with Traffic(None, {'v6': ('::1', port, RATE)}, backend=port_nobody_uses(), timeout=DEADLINE) as traffic:
            traffic.segment('reload')
            for _ in range(4):
                assert wrapper.reload() == (0, '')
                # The former generation has closed its own once it was scheduled, and no other twin is left.
                until(lambda: len(listening(port)) == 1, 'one socket at the address')
            no_failure(traffic)
        assert answers(port, '::1') == {'one'}
        if leased(binder):
            assert listening(port) == {held(binder)['tcp [::1]:{}'.format(port)]['inode']}
        takes_over = VERSION < (2, 3)
        assert bool(leased(binder)) == takes_over
        write(files, ['::1:{} v6only'.format(port)], 'two')
        for _ in range(2):      # the first binds it once more, the second takes it over
            assert wrapper.reload() == (0, '')
        assert answers(port, '::1') == {'two'}
        assert listening(port) == {held(binder)['tcp [::1]:{}'.format(port)]['inode']}
    assert wrapper.output.count('cannot be held') <= 1


def test_unix_and_abstract_listeners_pass_a_reload(binder, files):
    folder, name = tempfile.TemporaryDirectory(), os.path.basename(files.folder)
    path = os.path.join(folder.name, 'web')
    write(files, ['unix@' + path, 'abns@' + name])
    with Wrapper(files, binder.path) as wrapper:
        for _ in range(2):
            assert wrapper.reload() == (0, '')
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(path)
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(b'\0' + name.encode().ljust(107, b'\0'))
        assert held(binder) == {}
        printed = ctl(binder, 'list', MULTIBINDER_RUNTIME_PREFIX=files.runtime[:-1])
        assert printed.count('not held, foo: ') == 2 and path in printed
        wrapper.__exit__(None, None, None)
        for sentence in ('{} is known to the kernel'.format(path), '@{} is an abstract name'.format(name)):
            assert wrapper.output.count(sentence) == 1
    folder.cleanup()


def test_a_pause_is_healed(binder, files):
    port = port_nobody_uses()
    write(files, ['127.0.0.1:{}'.format(port)])
    with Wrapper(files, binder.path) as wrapper:
        before = listening(port)
        assert command(wrapper, '@1 disable frontend web') is not None
        until(lambda: not refused(port), 'it listens again, though its haproxy pauses')
        assert wrapper.reload() == (0, '')
        assert answers(port) == {'one'} and listening(port) == before


def test_the_binder_dies_and_gets_its_listeners_back(files):
    port = port_nobody_uses()
    write(files, ['127.0.0.1:{}'.format(port)])
    first = Binder().__enter__()
    with Wrapper(files, first.path) as wrapper:
        before = listening(port)
        first.kill(signal.SIGKILL)
        first.wait()
        assert answers(port) == {'one'}
        second = Running([sys.executable, command_of('multibinder'), first.path], env=environment())
        second.path = first.path
        second.wait_for('Listening for binds')
        name = 'tcp 127.0.0.1:{}'.format(port)
        until(lambda: leased(second) == {name}, 'the wrapper has given it back')
        write(files, ['127.0.0.1:{}'.format(port)], 'two')
        assert wrapper.reload() == (0, '')
        assert answers(port) == {'two'} and listening(port) == before
    ctl(second, 'release', name)
    assert second.stop() == 0
    first.__exit__(None, None, None)
    assert not os.path.exists(first.folder)


def test_without_a_binder(files):
    port = port_nobody_uses()
    write(files, ['127.0.0.1:{}'.format(port)])
    with Wrapper(files, '') as wrapper:
        before = listening(port)
        write(files, ['127.0.0.1:{}'.format(port)], 'two')
        assert wrapper.reload() == (0, '')
        assert answers(port) == {'two'} and listening(port) == before
    assert refused(port)


def test_from_haproxy_service_with_the_very_same_config(binder, files):
    """No template has to be written: adopt, start the instance on the same text, let the old one finish."""
    port = port_nobody_uses()
    write(files, ['127.0.0.1:{}'.format(port)], 'ours')
    with Stock(['127.0.0.1:{}'.format(port)]) as stock:
        with Traffic(None, {'v4': ('127.0.0.1', port, RATE)}, backend=port_nobody_uses(), timeout=DEADLINE) as traffic:
            traffic.segment('forth')
            before = listening(port)
            ctl(binder, 'adopt', 'pid', str(stock.pid))
            with Wrapper(files, binder.path):
                stock.finish()
                until(lambda: not keepers(binder), 'the keeper ends with the old haproxy')
                assert answers(port) == {'ours'} and listening(port) == before
                no_failure(traffic)
                traffic.__exit__(None, None, None)


def test_a_rendered_config_without_its_template_is_no_plain_one(binder, files):
    files.write('frontend web\n    bind fd@3\n'
                '# Rendered by multibinder from /x: do not edit this file, edit the template.\n', files.config)
    wrapper = Wrapper(files, binder.path)
    assert wrapper.wait() == 1
    assert 'there is no template for' in wrapper.output
    assert not wrapper.processes()


def command(wrapper, text):
    """Say something to the command line of the instance's haproxy; return its answer."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(os.path.join(wrapper.files.runtime, 'cli'))
        sock.sendall(text.encode() + b'\n')
        return sock.recv(65536)


# What the binder cannot hold: said once, and passed on in a reload all the same

FORWARD = '''
log-forward syslog
    dgram-bind 127.0.0.1:{udp}
    log 127.0.0.1:{sink} local0
'''


@pytest.fixture
def namespace():
    name = 'mb' + uuid.uuid4().hex[:8]
    subprocess.check_call(['ip', 'netns', 'add', name])
    try:
        subprocess.check_call(['ip', '-n', name, 'link', 'set', 'lo', 'up'])
        yield name
    finally:
        subprocess.check_call(['ip', 'netns', 'del', name])


def inodes(port, kind, inside=()):
    """Return the inodes (set of str) of the sockets at a port; `inside` is what runs a command there."""
    shown = subprocess.check_output(list(inside) + ['ss', '-Hane', kind, 'sport', '=', ':{}'.format(port)],
                                    universal_newlines=True, stderr=subprocess.DEVNULL)
    return set(re.findall(r'\bino:([1-9]\d*)', shown))


def test_datagrams(binder, files):
    if VERSION < (2, 3):
        pytest.skip('dgram-bind is of 2.3')
    port, udp = port_nobody_uses(), port_nobody_uses()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink, \
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sink.bind(('127.0.0.1', 0))
        sink.settimeout(DEADLINE)
        write(files, ['127.0.0.1:{}'.format(port)])
        files.write(files.read() + FORWARD.format(udp=udp, sink=sink.getsockname()[1]), files.config)
        with Wrapper(files, binder.path) as wrapper:
            before = inodes(udp, '-u')
            assert len(before) == 1
            for _ in range(3):
                assert wrapper.reload() == (0, '')
                until(lambda: inodes(udp, '-u') == before, 'the very same socket and no twin')
                word = uuid.uuid4().hex
                sender.sendto('<134>Nov 22 12:00:00 host test: {}'.format(word).encode(), ('127.0.0.1', udp))
                assert word in sink.recv(2000).decode()
            assert leased(binder) == {'tcp 127.0.0.1:{}'.format(port)}
        assert wrapper.output.count('127.0.0.1:{} is a datagram socket'.format(udp)) == 1


def test_a_network_namespace(binder, files, namespace):
    port, hidden = port_nobody_uses(), port_nobody_uses()
    binds = ['127.0.0.1:{}'.format(port), '127.0.0.1:{} namespace {}'.format(hidden, namespace)]
    inside = ['ip', 'netns', 'exec', namespace]
    write(files, binds)
    with Wrapper(files, binder.path) as wrapper:
        before = inodes(hidden, '-t', inside)
        assert len(before) == 1
        for word in ('two', 'three'):
            write(files, binds, word)
            assert wrapper.reload() == (0, '')
            until(lambda: inodes(hidden, '-t', inside) == before, 'the very same listener and no twin')
            assert answers(port) == {word}
            assert subprocess.check_output(
                inside + ['curl', '-sS', '--max-time', str(DEADLINE), 'http://127.0.0.1:{}/'.format(hidden)]) == word.encode()
        assert leased(binder) == {'tcp 127.0.0.1:{}'.format(port)}
    assert wrapper.output.count('127.0.0.1:{} is in another network namespace ({})'.format(hidden, namespace)) == 1
