"""haproxy before 1.8: -Ds, no master, no notification. A stand-in behaves as 1.7 does: the process in the
foreground waits for its workers and hands no signal on to them, the pidfile names the workers."""

import os
import signal
import socket
import sys

import pytest

from multibinder.haproxy.process import children_of
from running import DEADLINE, Binder, free_port
from wrapper_running import Files, Wrapper, answer_in, ask, template, until

STAND_IN = r'''#!{python}
import os, re, select, signal, socket, sys

words = sys.argv[1:]
if words[0] in ('-v', '-vv'):
    print('HA-Proxy version 1.7.5 2017/04/03\nBuild options :\n  OPTIONS = USE_ZLIB=1')
    sys.exit(0)
assert words[0] == '-Ds', words
texts = [open(words[i + 1]).read() for i, word in enumerate(words) if word == '-f']
text = '\n'.join(texts)
if 'bogus' in text:
    sys.stderr.write("[ALERT] 001/000000 (1) : parsing [%s:3] : unknown keyword 'bogus'\n" % words[words.index('-f') + 1])
    sys.exit(1)
# The worker answers only when the pidfile is whole and the signals are caught: tests look at once.
told, tell = os.pipe()
worker = os.fork()
if worker:
    with open(words[words.index('-p') + 1], 'w') as pidfile:
        pidfile.write('%d\n' % worker)
    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    os.close(tell)
    _, status = os.waitpid(worker, 0)
    sys.exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0)
os.close(tell)
os.read(told, 1)
os.setsid()
if 'dies' in text:
    sys.exit(1)
answer = re.search('location /(\w+)', text).group(1)
binds = [socket.socket(fileno=int(n)) for n in re.findall(r'bind fd@(\d+)', text)]
admin = [socket.socket(socket.AF_UNIX, fileno=int(n)) for n in re.findall(r'stats socket fd@(\d+)', text)]
if os.path.exists(os.path.join(os.path.dirname(words[words.index('-f') + 1]), 'mute')):
    admin = []
wake, waker = os.pipe()
os.set_blocking(waker, False)
signal.set_wakeup_fd(waker)
signal.signal(signal.SIGUSR1, lambda *_: None)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
clients, stopping = [], False
while not stopping or clients:
    for source in select.select([wake] + ([] if stopping else binds) + admin + clients, [], [])[0]:
        if source == wake:
            stopping = True
            while binds:
                binds.pop().close()
        elif source in binds or source in admin:
            connection = source.accept()[0]
            if source in admin:
                connection.recv(100)
                connection.sendall(b'Name: HAProxy\nStopping: %d\n' % stopping)
                connection.close()
            else:
                clients.append(connection)
        else:
            clients.remove(source)
            source.recv(10000)
            source.sendall(('HTTP/1.0 302 Found\r\nLocation: /%s\r\n\r\n' % answer).encode())
            source.close()
'''


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


@pytest.fixture
def stand_in(files):
    return files.script('haproxy', STAND_IN.replace('{python}', sys.executable))


def test_start_reload_stop(files, binder, port, stand_in):
    files.write(template([port]))
    with Wrapper(files, binder.path, haproxy=stand_in) as wrapper:
        assert 'haproxy 1.7.5 is run with -Ds in place of -Ws' in wrapper.output
        assert ask(port) == 'one'
        first = wrapper.serving()
        with socket.create_connection(('127.0.0.1', port)) as slow:
            ask(port)       # accepted behind it
            files.write(template([port], 'two'))
            assert wrapper.reload() == (0, '')
            assert ask(port) == 'two'
            # Not the highest PID: the kernel begins anew when it has come to the last one.
            [second] = until(lambda: [pid for pid in wrapper.haproxies() if pid != first], 'the new generation')
            assert int(files.read(files.pidfile)) in children_of(second)
            slow.sendall(b'GET / HTTP/1.0\r\n\r\n')
            assert answer_in(slow.recv(10000)) == 'one'
        wrapper.serving()
        wrapper.kill(signal.SIGTERM)
        assert wrapper.wait() == 0


@pytest.mark.parametrize('extra', ['    bogus', '    # dies'])
def test_failed_reload(files, binder, port, stand_in, extra):
    files.write(template([port]))
    with Wrapper(files, binder.path, haproxy=stand_in) as wrapper:
        pids = files.read(files.pidfile)
        files.write(template([port], extra=extra))
        status, said = wrapper.reload()
        assert status == 1 and 'haproxy 1.7.5 did not start' in said
        assert files.read(files.pidfile) == pids
        assert ask(port) == 'one'
        files.write(template([port], 'two'))
        assert wrapper.reload() == (0, '')
        assert ask(port) == 'two'


def test_one_that_does_not_answer(files, binder, port, stand_in):
    """It serves when it has lived for a while with a worker."""
    files.write('', os.path.join(files.folder, 'mute'))
    files.write(template([port]))
    with Wrapper(files, binder.path, haproxy=stand_in):
        assert ask(port) == 'one'


def test_waiting_process_killed(files, binder, port, stand_in):
    """The worker, which would serve the old config for good, is told to finish."""
    files.write(template([port]))
    with Wrapper(files, binder.path, haproxy=stand_in) as wrapper:
        os.kill(wrapper.serving(), signal.SIGKILL)
        assert wrapper.process.wait(DEADLINE) == 128 + signal.SIGKILL
        until(lambda: not wrapper.processes(), 'nothing is left')
