"""A real wrapper over a real haproxy and a real binder, in a folder of its own, as a context manager. At
its end nothing may be left: no process, no socket, no temporary file."""

import os
import shutil
import signal
import socket
import sys
import tempfile
import time
import uuid

from running import DEADLINE, PROJECT, Running, command_of, environment, free_port

sys.path.insert(0, PROJECT)

from multibinder.haproxy.command import Binary                 # noqa: E402
from multibinder.haproxy.control import wait_for_reload        # noqa: E402
from multibinder.haproxy.process import children_of            # noqa: E402

# Another haproxy can be put to the same tests.
HAPROXY = os.environ.get('MULTIBINDER_TEST_HAPROXY') or shutil.which('haproxy') or '/usr/sbin/haproxy'
MARK = 'MULTIBINDER_TEST_MARK'

TEMPLATE = """\
global
    maxconn 50
{extra}
defaults
    mode http
    timeout connect 5s
    timeout client 20s
    timeout server 20s
{defaults}
frontend web
{binds}
    http-request redirect location /{answer}
"""


def template(ports, answer='one', extra='', defaults='', address='127.0.0.1'):
    """Return a template that answers `answer` on `ports`."""
    binds = '\n'.join("    bind ${{bind_tcp('{}', {})}}".format(address, port) for port in ports)
    return TEMPLATE.format(binds=binds, answer=answer, extra=extra, defaults=defaults)


def ask(port, address='127.0.0.1', path='/', seconds=DEADLINE):
    """Return the answer (str) that haproxy gives on a fresh connection."""
    with socket.create_connection((address, port), seconds) as sock:
        sock.sendall('GET {} HTTP/1.0\r\n\r\n'.format(path).encode())
        received = b''
        while True:
            data = sock.recv(65536)
            if not data:
                return answer_in(received)
            received += data


def answer_in(received):
    """Return the answer (str) in a whole response (bytes): every haproxy can redirect."""
    for line in received.decode().split('\r\n'):
        if line.lower().startswith('location: /'):
            return line.rpartition('/')[2]
    raise AssertionError('no answer of ours: {!r}'.format(received))


def refused(port, address='127.0.0.1'):
    """Tell whether a connection is refused."""
    with socket.socket() as sock:
        sock.settimeout(DEADLINE)
        return sock.connect_ex((address, port)) != 0


def until(condition, what, seconds=DEADLINE):
    """Wait until `condition()` is true: for what gives no event to another process."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, 'still not so after {} s: {}'.format(seconds, what)
        time.sleep(0.01)


class Files(object):
    """The folder of one instance: templates and configs in it, the runtime directory below."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix='multibinder-wrapper-')
        self.runtime = os.path.join(self.folder, 'run')
        self.config = os.path.join(self.folder, 'foo.cfg')
        self.template = self.config + '.tmpl'
        self.pidfile = os.path.join(self.folder, 'foo.pid')
        self.defaults = os.path.join(self.folder, 'defaults')

    def write(self, text, path=None):
        with open(path or self.template, 'w') as file:
            file.write(text)

    def read(self, path=None):
        with open(path or self.config, errors='surrogateescape') as file:
            return file.read()

    def script(self, name, text):
        """Write an executable stand-in; return its path."""
        path = os.path.join(self.folder, name)
        self.write(text, path)
        os.chmod(path, 0o755)
        return path

    def temporary(self):
        """Return what is there that should be gone after a launch."""
        return [name for name in os.listdir(self.folder) if name.endswith(('.new', '.old'))]

    def remove(self):
        shutil.rmtree(self.folder)


class Wrapper(Running):
    """A wrapper of the instance foo."""

    def __init__(self, files, binder_path, haproxy=HAPROXY, words=None, **variables):
        self.files = files
        self.mark = str(uuid.uuid4())
        variables.setdefault('MULTIBINDER_RUNTIME_DIR', files.runtime)
        variables.setdefault('MULTIBINDER_DEFAULTS', files.defaults)
        variables[MARK] = self.mark
        if binder_path is not None:
            variables['MULTIBINDER_SOCK'] = binder_path
        if words is None:
            words = ['-Ws', '-f', files.config, '-p', files.pidfile]
        Running.__init__(self, [sys.executable, command_of('multibinder-haproxy-wrapper'), haproxy] + words,
                         env=environment(**variables), cwd=files.folder)

    def __enter__(self):
        try:
            self.wait_for(' serves')
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, kind, value, traceback):
        try:
            if self.process.returncode is None:
                if self.process.poll() is None:
                    self.kill(signal.SIGTERM)
                    self.kill(signal.SIGTERM)
                self.stop()
            if kind is None:
                assert 'Traceback' not in self.output, self.output
                until(lambda: not self.processes(), 'no process is left: {}'.format(self.processes()))
                assert not os.path.isdir(self.files.runtime) or os.listdir(self.files.runtime) == []
                assert self.files.temporary() == []
        finally:
            if kind is not None:
                sys.stderr.write('the wrapper wrote:\n' + self.output)
            for pid in self.processes():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass        # it was about to end

    def processes(self):
        """Return the PIDs of all that descends from this wrapper: the mark is in their environment."""
        wanted = '{}={}'.format(MARK, self.mark).encode()
        found = []
        for name in os.listdir('/proc'):
            if name.isdigit():
                try:
                    with open('/proc/{}/environ'.format(name), 'rb') as file:
                        if wanted in file.read().split(b'\0'):
                            found.append(int(name))
                except OSError:
                    continue
        return found

    def command_lines(self):
        """Return {PID: words} of all that descends from this wrapper, without those that have just ended."""
        found = {}
        for pid in self.processes():
            try:
                with open('/proc/{}/cmdline'.format(pid), errors='surrogateescape') as file:
                    words = file.read().split('\0')[:-1]
            except OSError:
                continue
            if words:       # none is what a zombie has
                found[pid] = words
        return found

    def descriptors(self):
        """Return the wrapper's descriptors once it has done with all that has happened so far. It opens a file when
        it writes its state, which is a moment after it says that a generation serves, or has reaped one: only then
        does it answer who waits for an outcome."""
        self.outcome()
        return Running.descriptors(self)

    def reload(self, seconds=DEADLINE):
        """Ask for a reload and wait for its outcome; return (status, reason)."""
        self.kill(signal.SIGUSR2)
        return self.outcome(seconds)

    def outcome(self, seconds=DEADLINE):
        return wait_for_reload(os.path.join(self.files.runtime, 'control'), 'foo', seconds)

    def haproxies(self):
        """Return the PIDs of the wrapper's children: one for each generation."""
        return sorted(children_of(self.pid))

    def serving(self):
        """Return the PID of the one generation there is."""
        return until(lambda: self.haproxies() if len(self.haproxies()) == 1 else None, 'one generation')[0]


__all__ = ['Binary', 'DEADLINE', 'Files', 'HAPROXY', 'Wrapper', 'answer_in', 'ask', 'free_port', 'refused', 'template', 'until']
