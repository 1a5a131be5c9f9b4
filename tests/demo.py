"""`make demo`: builds and installs the package here, starts an instance, and shows what clients see of its reloads.

Under systemd the instance is the unit haproxy-multi@multibinder-demo and stays running. Without systemd (a container)
the binder and the wrapper run in the foreground below this program, until it is interrupted. Either way it can be
run again.
"""

import glob
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

TESTS = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [TESTS, os.path.join(TESTS, 'system')]

import build_deb  # noqa: E402
from traffic import Traffic  # noqa: E402

NAME = 'multibinder-demo'
UNIT = 'haproxy-multi@%s' % NAME
DEFAULT_SOCKET = '/run/multibinder.sock'
RATE = 200
RELOADS = 5
DEADLINE = 60

CONFIG = '''\
# Written by `make demo`; yours to change: systemctl reload haproxy-multi@multibinder-demo
global
    maxconn 2000

defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s

frontend demo
    bind ${bind_tcp('127.0.0.1', %d)}
    http-request return status 200 content-type text/plain lf-string "hello from haproxy, process %%pid\\n"
'''


class DemoError(Exception):
    """Something the demo needs does not work; the sentence says what."""


def step(text):
    print('demo: ' + text)
    sys.stdout.flush()


def run(argv, timeout=300):
    """Runs a command quietly; a failure shows what it said."""
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               env=dict(os.environ, DEBIAN_FRONTEND='noninteractive'))
    try:
        out, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise DemoError('%s takes longer than %d s' % (' '.join(argv), timeout))
    words = out.decode('utf-8', 'replace')
    if process.returncode != 0:
        raise DemoError('%s failed (%d):\n%s' % (' '.join(argv), process.returncode, words[-3000:]))
    return words


def package():
    """Builds the package, unless MULTIBINDER_DEB names one, and installs it."""
    with tempfile.TemporaryDirectory(prefix='multibinder-demo.') as directory:
        deb = os.environ.get('MULTIBINDER_DEB')
        if not deb:
            step('building the package')
            deb = build_deb.build(directory)
        step('installing ' + os.path.basename(deb))
        # apt for its dependencies; --reinstall so that a second demo shows the tree as it is now.
        run(['apt-get', 'install', '-y', '--no-install-recommends', '--reinstall', '--allow-downgrades', deb])


def free_port():
    """A high port that is free; the one of an earlier demo if its template is still there."""
    try:
        with open(template_path()) as stream:
            found = re.search(r"bind_tcp\('127\.0\.0\.1', (\d+)\)", stream.read())
            if found:
                return int(found.group(1))
    except OSError:
        pass
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def template_path():
    return '/etc/haproxy/%s.cfg.tmpl' % NAME


def write_template(port):
    if os.path.exists(template_path()):
        return
    with open(template_path() + '.new', 'w') as stream:
        stream.write(CONFIG % port)
    os.rename(template_path() + '.new', template_path())


class Systemd:
    """The instance as a unit."""

    where = 'as the unit ' + UNIT

    def start(self, port):
        run(['systemctl', 'start', 'multibinder'])
        run(['systemctl', 'restart', UNIT])

    def reload(self):
        run(['systemctl', 'reload', UNIT])

    def restart(self):
        run(['systemctl', 'restart', UNIT])

    def finish(self, port):
        step('the instance stays running %s' % self.where)
        print('''
    curl http://127.0.0.1:%(port)d/                   asks it
    systemctl status %(unit)s     shows it
    multibinderctl list                            shows its listener
    systemctl disable --now %(unit)s && rm %(files)s*
                                                   stops it and takes it away
    README.md, "The walk-through"                  goes on from here''' % {
            'port': port, 'unit': UNIT, 'files': template_path()[:-len('.tmpl')]})


class Foreground:
    """Binder and wrapper below this program, as in a container."""

    where = 'in the foreground, below this program'

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix='multibinder-demo.')
        self.environment = dict(os.environ, MULTIBINDER_SOCK=os.path.join(self.directory, 'binder.sock'))
        for name in ('NOTIFY_SOCKET', 'MULTIBINDER_ON_STOP'):
            self.environment.pop(name, None)
        self.pidfile = os.path.join(self.directory, 'haproxy.pid')
        self.log = open(os.path.join(self.directory, 'log'), 'ab')
        self.port = None
        self.binder = None
        self.wrapper = None

    def _spawn(self, argv):
        return subprocess.Popen(argv, env=self.environment, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def start(self, port):
        self.port = port
        self.binder = self._spawn(['multibinder', self.environment['MULTIBINDER_SOCK']])
        self.wait(lambda: os.path.exists(self.environment['MULTIBINDER_SOCK']), 'the binder listens')
        self._launch()

    def _launch(self):
        self.wrapper = self._spawn(
            ['multibinder-haproxy-wrapper', '/usr/sbin/haproxy', '-Ws', '-f', template_path(), '-p', self.pidfile])
        self.wait(lambda: os.path.exists(self.pidfile) and self.answers(), 'haproxy answers')

    def answers(self):
        with socket.socket() as probe:
            probe.settimeout(1)
            try:
                probe.connect(('127.0.0.1', self.port))
                probe.sendall(b'GET / HTTP/1.0\r\n\r\n')
                return probe.recv(1) != b''
            except OSError:
                return False

    def wait(self, condition, what):
        deadline = time.monotonic() + DEADLINE
        while not condition():
            for process in (self.binder, self.wrapper):
                if process is not None and process.poll() is not None:
                    raise DemoError('%s: it ended with %d\n%s' % (what, process.returncode, self.words()))
            if time.monotonic() > deadline:
                raise DemoError('%s: not within %d s\n%s' % (what, DEADLINE, self.words()))
            time.sleep(0.05)

    def words(self):
        with open(self.log.name, errors='replace') as stream:
            return stream.read()[-3000:]

    def pid(self):
        try:
            with open(self.pidfile) as stream:
                return stream.read()
        except FileNotFoundError:
            return ''

    def reload(self):
        before = self.pid()
        self.wrapper.send_signal(signal.SIGUSR2)
        # haproxy removes the file, makes it anew, and writes it only then.
        self.wait(lambda: self.pid() not in ('', before), 'a new haproxy serves')

    def restart(self):
        self.wrapper.terminate()
        self.wrapper.wait(DEADLINE)
        self._launch()

    def finish(self, port):
        step('the instance runs %s; curl http://127.0.0.1:%d/ asks it, Ctrl-C ends it' % (self.where, port))
        step('README.md, "In a container, without systemd", goes on from here')
        sys.stdout.flush()
        try:
            self.wrapper.wait()
        except KeyboardInterrupt:
            print()
        step('ending')

    def close(self):
        for process in (self.wrapper, self.binder):
            if process is not None and process.poll() is None:
                process.terminate()
                try:
                    process.wait(DEADLINE)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self.log.close()
        for path in glob.glob(os.path.join(self.directory, '*')):
            os.unlink(path)
        os.rmdir(self.directory)


def show(instance, port):
    """Sends the requests and prints the table; gives the number of failed ones."""
    rows = []
    with Traffic(None, {'demo': ('127.0.0.1', port, RATE)}) as traffic:
        traffic.wait_new('demo', (), DEADLINE)

        def stretch(name, event, count=1):
            step('%d requests a second: %s' % (RATE, name))
            traffic.segment(name)
            for _ in range(count):
                known = set(traffic.seen('demo'))
                event()
                if event is not nothing:
                    traffic.wait_new('demo', known, DEADLINE)
                time.sleep(0.5)
            rows.append((name, traffic.report()['demo']))

        def nothing():
            time.sleep(1.5)

        stretch('nothing happens', nothing)
        stretch('%d reloads' % RELOADS, instance.reload, RELOADS)
        stretch('a restart', instance.restart)
    print('\n    %-18s %9s %7s %11s %16s' % ('', 'requests', 'failed', 'slowest', 'haproxy processes'))
    for name, report in rows:
        slowest = '-' if report['max_ms'] is None else '%.1f ms' % report['max_ms']
        print('    %-18s %9d %7d %11s %16d' % (name, report['asked'], report['failed'], slowest, len(report['answers'])))
    print()
    return sum(report['failed'] for _, report in rows)


def interrupt(number, frame):
    raise KeyboardInterrupt


def main():
    if os.geteuid() != 0:
        sys.exit('demo: it installs a package and starts a service: run it as root (sudo make demo)')
    signal.signal(signal.SIGTERM, interrupt)
    instance = None
    try:
        package()
        port = free_port()
        write_template(port)
        instance = Systemd() if os.path.isdir('/run/systemd/system') else Foreground()
        step('starting a demo instance on 127.0.0.1:%d, %s' % (port, instance.where))
        instance.start(port)
        failed = show(instance, port)
        if failed:
            raise DemoError('%d requests failed' % failed)
        instance.finish(port)
    except (DemoError, build_deb.BuildError, OSError, subprocess.SubprocessError, AssertionError) as error:
        sys.exit('demo: %s' % error)
    except KeyboardInterrupt:
        sys.exit('demo: interrupted')
    finally:
        if isinstance(instance, Foreground):
            instance.close()


if __name__ == '__main__':
    main()
