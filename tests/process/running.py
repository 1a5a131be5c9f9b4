"""A private real binder as a context manager: started, waited for by its words, stopped with a deadline,
its output shown when something goes wrong. Leaves nothing behind, and says so when it did."""

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DEADLINE = 20.0


def command_of(name):
    """Return the path of an executable: of this tree, or, with MULTIBINDER_TEST_INSTALLED, of the package."""
    if os.environ.get('MULTIBINDER_TEST_INSTALLED'):
        return shutil.which(name) or '/usr/bin/' + name
    return os.path.join(PROJECT, 'bin', name)


def environment(**variables):
    """Return an environment for a child: ours, without what a service manager may have set."""
    result = {key: value for key, value in os.environ.items()
              if key not in ('NOTIFY_SOCKET', 'LISTEN_FDS', 'LISTEN_PID', 'LISTEN_FDNAMES', 'JOURNAL_STREAM')
              and not key.startswith('MULTIBINDER_')}
    if not os.environ.get('MULTIBINDER_TEST_INSTALLED'):
        result['PYTHONPATH'] = PROJECT
    result['PYTHONDONTWRITEBYTECODE'] = '1'
    result.update(variables)
    return result


_given = set()      # ports: a test that asks for two wants two


def free_port(family=socket.AF_INET):
    """Return a TCP port that was free a moment ago, outside the range of the kernel's own choices, and that nobody
    got here before."""
    low = int(open('/proc/sys/net/ipv4/ip_local_port_range').read().split()[0])
    for _ in range(200):
        port = 10000 + int.from_bytes(os.urandom(2), 'big') % (low - 10000)
        if port in _given:
            continue
        with socket.socket(family) as probe:
            try:
                probe.bind(('::1' if family == socket.AF_INET6 else '127.0.0.1', port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise AssertionError('no free port')


class Running(object):
    """A child whose stderr is read line by line. `wait_for` is the only way to wait for it."""

    def __init__(self, command, env=None, cwd=None, pass_fds=()):
        self.output = ''
        self._seen = 0
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=environment() if env is None else env, cwd=cwd, pass_fds=pass_fds)
        os.set_blocking(self.process.stdout.fileno(), False)

    @property
    def pid(self):
        return self.process.pid

    def wait_for(self, text, seconds=DEADLINE):
        """Wait until the child has written `text` since the last text waited for."""
        deadline = time.monotonic() + seconds
        while text not in self.output[self._seen:]:
            left = deadline - time.monotonic()
            assert left > 0, 'no {!r} in {} s; it wrote:\n{}'.format(text, seconds, self.output)
            if select.select([self.process.stdout], [], [], left)[0]:
                data = self.process.stdout.read()
                assert data, 'it ended with {} before {!r}; it wrote:\n{}'.format(
                    self.process.wait(DEADLINE), text, self.output)
                self.output += data.decode('utf-8', 'replace')
        self._seen = self.output.index(text, self._seen) + len(text)

    def kill(self, number):
        self.process.send_signal(number)

    def wait(self, seconds=DEADLINE):
        """Return the exit status once the child has ended."""
        data, _ = self.process.communicate(timeout=seconds)
        self.output += (data or b'').decode('utf-8', 'replace')
        return self.process.returncode

    def stop(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.kill(number)
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.wait()
            raise AssertionError('it did not stop; it wrote:\n' + self.output)

    def descriptors(self):
        return sorted(int(name) for name in os.listdir('/proc/{}/fd'.format(self.pid)))


class Binder(Running):
    """A binder in a folder of its own; `path` is its control socket."""

    def __init__(self, *options, **kwargs):
        self.folder = tempfile.mkdtemp(prefix='multibinder-test-')
        self.path = os.path.join(self.folder, 'control')
        self.started = False
        Running.__init__(self, [command_of('multibinder')] + list(options) + [self.path], **kwargs)

    def __enter__(self):
        try:
            self.wait_for('Listening for binds on control socket: ' + self.path)
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, kind, value, traceback):
        try:
            if self.process.returncode is None:
                status = self.stop()
                if kind is None:
                    assert status == 0, (status, self.output)
                    assert 'Traceback' not in self.output and 'internal error' not in self.output, self.output
                    assert os.listdir(self.folder) == [], os.listdir(self.folder)
            if kind is not None:
                sys.stderr.write('the binder wrote:\n' + self.output)
        finally:
            shutil.rmtree(self.folder)
