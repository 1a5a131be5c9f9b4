"""Every end of a haproxy, of the wrapper, and what is asked in the middle of something else."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from manager import NotifySocket
from running import DEADLINE, Binder, command_of, environment, free_port
from wrapper_running import HAPROXY, Files, Wrapper, answer_in, ask, refused, template, until

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from multibinder.haproxy.process import children_of     # noqa: E402


@pytest.fixture
def files():
    made = Files()
    yield made
    made.remove()


@pytest.fixture
def binder():
    with Binder() as running:
        yield running


@pytest.fixture
def port():
    return free_port()


def slow_stand_in(files):
    """A haproxy whose launch waits, before it becomes one, until the file `gate` exists."""
    return files.script('haproxy', '#!/bin/sh\n'
                        'case "$1" in -v*) exec {0} "$@";; esac\n'
                        'test -e {1}/gate || read nothing <{1}/fifo\n'
                        'exec {0} "$@"\n'.format(HAPROXY, files.folder))


def open_gate(files):
    files.write('', os.path.join(files.folder, 'gate'))


def wait_at_gate(files):
    """Open the fifo for writing, which is possible once the stand-in reads it; closing lets it go on."""
    return os.open(os.path.join(files.folder, 'fifo'), os.O_WRONLY)


@pytest.mark.parametrize('victim', ['worker', 'master'])
def test_haproxy_killed(files, binder, port, victim):
    """The wrapper ends, too, with a status that systemd's unit takes for a reason to start again."""
    files.write(template([port]))
    with Wrapper(files, binder.path) as wrapper:
        master = wrapper.serving()
        pid = master if victim == 'master' else until(lambda: children_of(master), 'a worker')[0]
        os.kill(pid, signal.SIGKILL)
        assert wrapper.wait() == 128 + signal.SIGKILL
        until(lambda: not wrapper.processes(), 'nothing is left')
    with Wrapper(files, binder.path):
        assert ask(port) == 'one'


def test_wrapper_killed(files, binder, port):
    """The kernel tells haproxy to finish: it answers what it has accepted, then it is gone."""
    files.write(template([port]))
    wrapper = Wrapper(files, binder.path)
    wrapper.wait_for(' serves')
    with socket.create_connection(('127.0.0.1', port)) as slow:
        slow.sendall(b'GET / HTTP/1.0\r\n')
        ask(port)
        wrapper.kill(signal.SIGKILL)
        wrapper.process.wait(DEADLINE)
        with Wrapper(files, binder.path):
            assert ask(port) == 'one'
            slow.sendall(b'\r\n')
            assert answer_in(slow.recv(65536)) == 'one'
            until(lambda: not wrapper.processes(), 'the killed wrapper has left nothing')


def test_stop_waits_for_what_is_in_flight(files, binder, port):
    files.write(template([port]))
    with Wrapper(files, binder.path) as wrapper:
        with socket.create_connection(('127.0.0.1', port)) as slow:
            slow.sendall(b'GET / HTTP/1.0\r\n')
            ask(port)
            wrapper.kill(signal.SIGTERM)
            wrapper.wait_for('stopping foo')
            slow.sendall(b'\r\n')
            assert answer_in(slow.recv(65536)) == 'one'
        assert wrapper.wait() == 0


def test_second_stop_hurries(files, binder, port):
    files.write(template([port]))
    with Wrapper(files, binder.path) as wrapper:
        with socket.create_connection(('127.0.0.1', port)) as slow:
            slow.sendall(b'GET / HTTP/1.0\r\n')
            ask(port)
            wrapper.kill(signal.SIGTERM)
            wrapper.wait_for('stopping foo')
            wrapper.kill(signal.SIGTERM)
            assert wrapper.wait() == 0


@pytest.mark.parametrize('on_stop', ['wait', 'leave'])
def test_stop_at_the_very_moment_it_serves(files, binder, port, on_stop):
    """A master that is executing itself once more hears no signal: it has to be told again."""
    files.write(template([port]))
    for _ in range(5):
        wrapper = Wrapper(files, binder.path, MULTIBINDER_ON_STOP=on_stop)
        until(lambda: not refused(port), 'the listener is there')
        ask(port)       # waits in the queue until a worker runs
        wrapper.kill(signal.SIGTERM)
        assert wrapper.process.wait(DEADLINE) == 0
        until(lambda: not wrapper.processes(), 'no haproxy is left')
        wrapper.__exit__(None, None, None)


def test_stop_that_leaves(files, binder, port):
    """Under systemd a restart does not wait: the old generation finishes beside the new instance."""
    files.write(template([port]))
    first = Wrapper(files, binder.path, MULTIBINDER_ON_STOP='leave')
    first.wait_for(' serves')
    workers = children_of(first.serving())
    listener = os.readlink('/proc/{}/fd/3'.format(first.serving()))

    def accepts(pid):
        try:
            return os.readlink('/proc/{}/fd/3'.format(pid)) == listener
        except OSError:
            return False
    with socket.create_connection(('127.0.0.1', port)) as slow:
        slow.sendall(b'GET / HTTP/1.0\r\n')
        ask(port)
        assert any(accepts(pid) for pid in workers)
        first.kill(signal.SIGTERM)
        assert first.process.wait(DEADLINE) == 0
        assert first.processes()
        # It was told to finish and nobody waited: until it has taken notice it answers new clients, too.
        until(lambda: not any(accepts(pid) for pid in workers), 'the old generation accepts no more')
        files.write(template([port], 'two'))
        with Wrapper(files, binder.path):
            assert ask(port) == 'two'
            slow.sendall(b'\r\n')
            assert answer_in(slow.recv(65536)) == 'one'
            until(lambda: not first.processes(), 'the old generation has finished')


def test_stop_during_a_reload(files, binder, port):
    """Both generations end, and the config on disk is the one that served."""
    os.mkfifo(os.path.join(files.folder, 'fifo'))
    open_gate(files)
    files.write(template([port]))
    with Wrapper(files, binder.path, haproxy=slow_stand_in(files)) as wrapper:
        config = files.read()
        os.unlink(os.path.join(files.folder, 'gate'))
        files.write(template([port], 'two'))
        wrapper.kill(signal.SIGUSR2)
        held = wait_at_gate(files)
        assert 'two' in files.read()
        wrapper.kill(signal.SIGTERM)
        assert wrapper.wait() == 0
        os.close(held)
        assert files.read() == config
        assert files.temporary() == []


def test_stop_during_the_start(files, binder, port):
    os.mkfifo(os.path.join(files.folder, 'fifo'))
    files.write(template([port]))
    wrapper = Wrapper(files, binder.path, haproxy=slow_stand_in(files))
    held = wait_at_gate(files)
    wrapper.kill(signal.SIGTERM)
    assert wrapper.wait() == 0
    os.close(held)
    until(lambda: not wrapper.processes(), 'nothing is left')
    assert not os.path.exists(files.config)
    assert os.listdir(files.runtime) == []


def test_reloads_during_a_reload_are_one_more(files, binder, port):
    os.mkfifo(os.path.join(files.folder, 'fifo'))
    open_gate(files)
    files.write(template([port]))
    with Wrapper(files, binder.path, haproxy=slow_stand_in(files)) as wrapper:
        os.unlink(os.path.join(files.folder, 'gate'))
        wrapper.kill(signal.SIGUSR2)
        held = wait_at_gate(files)
        files.write(template([port], 'last'))
        for _ in range(5):
            wrapper.kill(signal.SIGUSR2)
        open_gate(files)
        os.close(held)
        assert wrapper.outcome() == (0, '')
        assert ask(port) == 'last'
        assert wrapper.reload() == (0, '')
        wrapper.stop()
        assert wrapper.output.count('reloading foo') == 3


def test_generation_dies_while_the_next_one_starts(files, binder, port):
    """The new one takes over; there is no reason to give up."""
    os.mkfifo(os.path.join(files.folder, 'fifo'))
    open_gate(files)
    files.write(template([port]))
    with Wrapper(files, binder.path, haproxy=slow_stand_in(files)) as wrapper:
        old = wrapper.serving()
        workers = children_of(old)
        os.unlink(os.path.join(files.folder, 'gate'))
        files.write(template([port], 'two'))
        wrapper.kill(signal.SIGUSR2)
        held = wait_at_gate(files)
        os.kill(old, signal.SIGKILL)
        until(lambda: not os.path.exists('/proc/{}'.format(old)), 'the old generation is reaped')
        # They end when they see that their master has gone, and accept until then.
        until(lambda: not set(workers) & set(wrapper.processes()), 'its workers have ended')
        os.close(held)
        assert wrapper.outcome() == (0, '')
        assert ask(port) == 'two'


def test_old_generations_are_bounded(files, binder, port):
    """By number here: the oldest is ended when there are too many, and systemd is told of them."""
    files.write(template([port]))
    manager = NotifySocket()
    try:
        with Wrapper(files, binder.path, MULTIBINDER_MAX_OLD='1', NOTIFY_SOCKET=manager.address) as wrapper:
            slow = []
            for number in range(3):
                connection = socket.create_connection(('127.0.0.1', port))
                connection.sendall(b'GET / HTTP/1.0\r\n')
                slow.append(connection)
                ask(port)
                if number < 2:
                    assert wrapper.reload() == (0, '')
            until(lambda: len(wrapper.haproxies()) == 2, 'the oldest generation is ended')
            assert slow[0].recv(100) == b''
            for connection in slow[1:]:
                connection.sendall(b'\r\n')
                assert answer_in(connection.recv(65536)) == 'one'
            for connection in slow:
                connection.close()
        told = [fields for _, fields in manager.receive()]
        assert told[0]['READY'] == '1' and int(told[0]['MAINPID']) == wrapper.pid
        assert any('older still finish' in fields.get('STATUS', '') for fields in told)
        assert sum(1 for fields in told if 'RELOADING' in fields) == 2
        assert 'STOPPING' in told[-1]
    finally:
        manager.close()


def test_old_generations_are_bounded_by_age(files, binder, port):
    files.write(template([port]))
    with Wrapper(files, binder.path, MULTIBINDER_OLD_AGE='0.3') as wrapper:
        with socket.create_connection(('127.0.0.1', port)) as slow:
            slow.sendall(b'GET / HTTP/1.0\r\n')
            ask(port)
            assert wrapper.reload() == (0, '')
            assert slow.recv(100) == b''
        wrapper.serving()


def test_second_wrapper_is_refused(files, binder, port):
    files.write(template([port]))
    with Wrapper(files, binder.path):
        second = Wrapper(files, binder.path)
        assert second.wait() == 1
        assert 'another wrapper supervises this instance' in second.output
        assert ask(port) == 'one'


def command(*words, **variables):
    result = subprocess.run([sys.executable, command_of('multibinder-haproxy-wrapper')] + list(words),
                            env=environment(**variables), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            universal_newlines=True, timeout=DEADLINE)
    return result.returncode, result.stdout


def test_wait_reload_command(files, binder, port):
    files.write(template([port]))
    with Wrapper(files, binder.path) as wrapper:
        assert command('--wait-reload', 'foo', MULTIBINDER_RUNTIME_DIR=files.runtime) == (0, '')
        files.write(template([port], extra='    bogus'))
        wrapper.kill(signal.SIGUSR2)
        status, said = command('--wait-reload', 'foo', MULTIBINDER_RUNTIME_DIR=files.runtime)
        assert status == 1
        assert "unknown keyword 'bogus'" in said
    status, said = command('--wait-reload', 'foo', MULTIBINDER_RUNTIME_DIR=files.runtime)
    assert status == 1 and 'no wrapper of instance foo answers' in said


@pytest.mark.parametrize('words, status, said', [
    (['--help'], 0, 'usage:'),
    (['--version'], 0, 'multibinder-haproxy-wrapper '),
    ([], 2, 'usage:'),
    (['--wait-reload'], 2, 'needs the name'),
    (['--wait-reload', 'a/b'], 2, 'no name of an instance'),
    (['--nonsense'], 2, '--nonsense'),
    (['haproxy', '-Ws'], 2, 'no config was given'),
    (['haproxy', '-c', '-f', '/x.cfg.tmpl'], 2, '-c'),
    (['haproxy', '-f', '/x.cfg.tmpl', 'stray'], 2, 'stray'),
    (['haproxy', '-f', '/nonexistent/x.cfg'], 1, 'there is no template for /nonexistent/x.cfg'),
])
def test_usage(words, status, said):
    found, output = command(*words)
    assert found == status and said in output
    assert 'Traceback' not in output
