"""The wrapper and the binder: leases, a binder that is away, that comes back without its listeners, that
moves to another path."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

import pytest

from running import DEADLINE, Binder, Running, command_of, environment, free_port
from wrapper_running import Files, Wrapper, answer_in, ask, refused, template, until


@pytest.fixture
def files():
    made = Files()
    yield made
    made.remove()


@pytest.fixture
def port():
    return free_port()


class Path(object):
    """A control socket's path at which one binder after the other is started."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix='multibinder-path-')
        self.path = os.path.join(self.folder, 'control')

    def start(self, *options):
        binder = Running([sys.executable, command_of('multibinder')] + list(options) + [self.path])
        binder.wait_for('Listening for binds on control socket: ' + self.path)
        return binder

    def remove(self):
        shutil.rmtree(self.folder)


@pytest.fixture
def path():
    made = Path()
    yield made
    made.remove()


def listing(path):
    """Return what the binder at `path` holds: a dict of the printed form to its entry."""
    result = subprocess.run([sys.executable, command_of('multibinderctl'), 'list', '--json'],
                            env=environment(MULTIBINDER_SOCK=path), stdout=subprocess.PIPE, timeout=DEADLINE,
                            universal_newlines=True, check=True)
    found = json.loads(result.stdout)
    entries = found if isinstance(found, list) else found['listeners']
    return {entry['endpoint']: entry for entry in entries}


def inode_of(pid, number):
    return os.readlink('/proc/{}/fd/{}'.format(pid, number))


def test_claims_are_leases(files, port):
    """A port of the instance is held while the wrapper lives, and lingers when it is gone."""
    files.write(template([port]))
    with Binder('--linger', '0') as binder:
        with Wrapper(files, binder.path) as wrapper:
            for _ in range(3):
                assert wrapper.reload() == (0, '')
            entry = listing(binder.path)['tcp 127.0.0.1:{}'.format(port)]
            assert str(wrapper.pid) in json.dumps(entry)
        until(lambda: not listing(binder.path), 'the listener is closed with its last lease')
        assert refused(port)


def test_failed_reload_claims_nothing(files, port):
    """An address that only the failed config wanted is not held."""
    files.write(template([port]))
    unwanted = free_port()
    with Binder() as binder:
        with Wrapper(files, binder.path) as wrapper:
            files.write(template([port, unwanted], extra='    bogus'))
            assert wrapper.reload()[0] == 1
            assert list(listing(binder.path)) == ['tcp 127.0.0.1:{}'.format(port)]
            assert refused(unwanted)
            fds = len(wrapper.descriptors())
            for _ in range(3):
                assert wrapper.reload()[0] == 1
            assert len(wrapper.descriptors()) == fds


def test_leases_end_with_the_stop_and_not_with_the_drain(files, port):
    """Else clients would wait in the queue of an instance that only finishes old connections."""
    files.write(template([port]))
    with Binder('--linger', '0') as binder:
        with Wrapper(files, binder.path) as wrapper:
            with socket.create_connection(('127.0.0.1', port)) as slow:
                slow.sendall(b'GET / HTTP/1.0\r\n')
                ask(port)
                wrapper.kill(signal.SIGTERM)
                until(lambda: refused(port), 'nobody waits in vain')
                assert wrapper.process.poll() is None
                slow.sendall(b'\r\n')
                assert answer_in(slow.recv(65536)) == 'one'


def test_two_instances_share_an_address(port):
    """What one drops, the other one still has."""
    one, two = Files(), Files()
    try:
        with Binder() as binder:
            for files in (one, two):
                files.write(template([port]))
            with Wrapper(one, binder.path) as first:
                with Wrapper(two, binder.path):
                    one.write(template([free_port()]))
                    assert first.reload() == (0, '')
                    assert ask(port) == 'one'
    finally:
        one.remove()
        two.remove()


def test_binder_away_at_a_reload(files, port, path):
    """The reload fails after its deadline and says why; the next one after the binder's return works."""
    files.write(template([port]))
    binder = path.start()
    # A binder that is there has to answer within it, on a machine that is busy, too.
    with Wrapper(files, path.path, MULTIBINDER_BINDER_TIMEOUT='10') as wrapper:
        pid = wrapper.serving()
        inode = inode_of(pid, 3)
        binder.stop()
        wrapper.wait_for('has gone')
        files.write(template([port], 'two'))
        status, said = wrapper.reload(60)
        assert status == 1
        assert 'cannot reach the binder on {}'.format(path.path) in said and 'given up after 10 s' in said
        assert ask(port) == 'one'
        assert wrapper.serving() == pid
        binder = path.start()
        wrapper.wait_for('connected to the binder')
        assert wrapper.reload() == (0, '')
        assert ask(port) == 'two'
        assert inode_of(wrapper.serving(), 3) == inode
        binder.stop()


def test_binder_away_at_the_start(files, port, path):
    files.write(template([port]))
    wrapper = Wrapper(files, path.path, MULTIBINDER_BINDER_TIMEOUT='0.3')
    assert wrapper.wait() == 1
    assert 'cannot reach the binder on {}: No such file or directory'.format(path.path) in wrapper.output
    assert not os.path.exists(files.config)


def test_binder_killed(files, port, path):
    """It comes up without its listeners, and the wrapper gives them back: the very same sockets."""
    files.write(template([port]))
    binder = path.start()
    with Wrapper(files, path.path) as wrapper:
        inode = inode_of(wrapper.serving(), 3)
        for _ in range(2):
            binder.kill(signal.SIGKILL)
            binder.process.wait(DEADLINE)
            wrapper.wait_for('has gone')
            assert ask(port) == 'one'
            binder = path.start()
            wrapper.wait_for('gave tcp 127.0.0.1:{} back to the binder'.format(port))
            assert list(listing(path.path)) == ['tcp 127.0.0.1:{}'.format(port)]
            assert wrapper.reload() == (0, '')
            assert inode_of(wrapper.serving(), 3) == inode
            fds = len(wrapper.descriptors())
        assert wrapper.reload() == (0, '')
        wrapper.serving()
        assert len(wrapper.descriptors()) == fds
    binder.stop()


def test_binder_comes_back_during_a_reload(files, port, path):
    files.write(template([port]))
    binder = path.start()
    with Wrapper(files, path.path, MULTIBINDER_BINDER_TIMEOUT='20') as wrapper:
        binder.kill(signal.SIGKILL)
        binder.process.wait(DEADLINE)
        wrapper.wait_for('has gone')
        files.write(template([port], 'two'))
        wrapper.kill(signal.SIGUSR2)
        wrapper.wait_for('reloading foo')
        binder = path.start()
        assert wrapper.outcome() == (0, '')
        assert ask(port) == 'two'
    binder.stop()


def test_binder_re_executed(files, port):
    files.write(template([port]))
    with Binder() as binder:
        with Wrapper(files, binder.path) as wrapper:
            inode = inode_of(wrapper.serving(), 3)
            binder.kill(signal.SIGUSR1)
            binder.wait_for('Listening for binds on control socket')
            assert wrapper.reload() == (0, '')
            assert inode_of(wrapper.serving(), 3) == inode
        assert 'has gone' not in wrapper.output     # all of it has been read only now


def test_the_binder_moves(files, port):
    """dpkg-reconfigure has written another path: a reload moves there, with the same sockets."""
    files.write(template([port]))
    with Binder() as old:
        files.write('# comment\nMULTIBINDER_SOCK="{}"\n'.format(old.path), files.defaults)
        with Wrapper(files, old.path) as wrapper:
            inode = inode_of(wrapper.serving(), 3)
            with Binder() as new:
                files.write('MULTIBINDER_SOCK={}.nowhere\n'.format(new.path), files.defaults)
                wrapper_status, said = wrapper.reload()
                assert wrapper_status == 1 and new.path + '.nowhere' in said
                assert ask(port) == 'one'
                files.write('MULTIBINDER_SOCK={}\n'.format(new.path), files.defaults)
                files.write(template([port], 'two'))
                assert wrapper.reload() == (0, '')
                assert ask(port) == 'two'
                assert inode_of(wrapper.serving(), 3) == inode
                assert list(listing(new.path)) == ['tcp 127.0.0.1:{}'.format(port)]
                assert wrapper.reload() == (0, '')
                wrapper.stop()


def test_a_path_given_by_hand_is_kept(files, port):
    """The environment had its path from elsewhere: the defaults file is about another binder."""
    files.write(template([port]))
    files.write('MULTIBINDER_SOCK=/nonexistent/one\n', files.defaults)
    with Binder() as binder:
        with Wrapper(files, binder.path) as wrapper:
            files.write('MULTIBINDER_SOCK=/nonexistent/two\n', files.defaults)
            assert wrapper.reload() == (0, '')


def test_unix_listener(files, port):
    """A UNIX listener is an endpoint like any other."""
    address = os.path.join(files.folder, 'web.sock')
    files.write(template([port]).replace("bind_tcp('127.0.0.1', {})".format(port), "bind_unix('{}')".format(address)))
    with Binder('--linger', '0') as binder:
        with Wrapper(files, binder.path) as wrapper:
            for _ in range(2):
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.settimeout(DEADLINE)
                    sock.connect(address)
                    sock.sendall(b'GET / HTTP/1.0\r\n\r\n')
                    assert sock.recv(65536).startswith(b'HTTP/1.')
                assert wrapper.reload() == (0, '')
        until(lambda: not os.path.exists(address), 'the socket file is gone')


def test_a_changed_address_is_a_difference_while_the_instance_runs(files, port):
    """Seen: a port changed in the template was no difference, since only the numbers of descriptors were compared."""
    other = free_port()
    files.write(template([port]))
    with Binder() as binder, Wrapper(files, binder.path) as wrapper:
        def diff():
            return subprocess.check_output(
                [sys.executable, command_of('multibinder-haproxy-check'), '--diff', files.template],
                env=environment(MULTIBINDER_RUNTIME_DIR=files.runtime), universal_newlines=True, timeout=DEADLINE)
        assert diff() == ''
        files.write(template([other]))
        changed = [line for line in diff().splitlines()[2:] if line[0] in '+-']
        assert changed == ['-    bind 127.0.0.1:{}'.format(port), '+    bind 127.0.0.1:{}'.format(other)]
        assert wrapper.reload()[0] == 0
        assert diff() == ''


def test_a_start_that_fails_gives_nothing_up_that_lingers(files, port):
    """Seen: a restart with a config that haproxy refuses released the listener at once, and with it all the time
    there was to mend the config."""
    files.write(template([port]))
    with Binder() as binder:
        with Wrapper(files, binder.path):
            pass
        files.write(template([port], extra='    frobnicate on'))
        refused_one = Wrapper(files, binder.path)
        assert refused_one.wait() == 1 and 'frobnicate' in refused_one.output
        assert listing(binder.path)['tcp 127.0.0.1:{}'.format(port)]['state'] == 'lingering'
        files.write(template([port]))
        with Wrapper(files, binder.path):
            assert ask(port) == 'one'


def test_without_the_variable_the_path_of_the_defaults_file_is_meant(files, tmp_path):
    with Binder() as binder:
        defaults = tmp_path / 'defaults'
        defaults.write_text('# a comment\nMULTIBINDER_SOCK={}\n'.format(binder.path))
        env = environment(MULTIBINDER_DEFAULTS=str(defaults))
        said = subprocess.check_output([sys.executable, command_of('multibinderctl'), 'status'], env=env,
                                       universal_newlines=True, timeout=DEADLINE)
        assert ' on {}, pid {}'.format(binder.path, binder.pid) in said
