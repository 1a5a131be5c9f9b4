"""What the tests of adoption and of plain configs share: a haproxy that nobody supervises, multibinderctl,
a load, and the question which sockets are left."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time

from running import DEADLINE, PROJECT, Running, command_of, environment, free_port
from wrapper_running import HAPROXY

sys.path.insert(0, os.path.join(PROJECT, 'tests', 'system'))

from multibinder.sockets import tcp_listeners                  # noqa: E402
from traffic import Traffic                                     # noqa: E402

CONFIG = """\
global
    maxconn 500
{extra}
defaults
    mode http
    # The kernel's queue, where clients wait while nobody accepts. As long as maxconn, which it is by default, it is
    # full after less than two seconds of the tests' load, and a busy machine needs longer to start a haproxy.
    backlog 4096
    timeout connect 5s
    timeout client 20s
    timeout server 20s
frontend web
{binds}
    http-request return status 200 content-type text/plain string "{answer}"
"""


def config(binds, answer='one', extra=''):
    """Return a config that answers `answer` on `binds`, a list of what stands behind `bind`."""
    return CONFIG.format(binds='\n'.join('    bind ' + one for one in binds), answer=answer,
                         extra='\n'.join('    ' + line for line in extra.splitlines()))


def version_of(haproxy):
    """Return the version (tuple of two int) of a haproxy, (0, 0) where there is none."""
    if not os.path.exists(haproxy):
        return 0, 0
    printed = subprocess.check_output([haproxy, '-v'], universal_newlines=True)
    return tuple(int(number) for number in printed.split('ersion ')[1].split('-')[0].split('.')[:2])


def ctl(binder, *words, status=0, **variables):
    """Run multibinderctl; return what it printed (str)."""
    done = subprocess.Popen([sys.executable, command_of('multibinderctl'), '--socket', binder.path] + list(words),
                            env=environment(**variables), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            universal_newlines=True)
    output, _ = done.communicate(timeout=DEADLINE)
    assert done.returncode == status, (words, done.returncode, output)
    assert 'Traceback' not in output, output
    return output


def held(binder):
    """Return {endpoint: entry of `list`} of a binder."""
    return {one['endpoint']: one for one in json.loads(ctl(binder, 'list', '--json'))}


def answer(port, address='127.0.0.1', seconds=DEADLINE):
    """Return the body (str) of an answer on a fresh connection."""
    with socket.create_connection((address, port), seconds) as sock:
        sock.sendall(b'GET / HTTP/1.0\r\n\r\n')
        received = b''
        while True:
            data = sock.recv(65536)
            if not data:
                assert b' 200 ' in received, received
                return received.decode().partition('\r\n\r\n')[2]
            received += data


def answers(port, address='127.0.0.1', count=40):
    """Return the set of bodies of many fresh connections: a listener that nobody serves shows as a timeout."""
    return {answer(port, address) for _ in range(count)}


def refused(port, address='127.0.0.1'):
    """Tell whether a connection is refused."""
    with socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET) as sock:
        sock.settimeout(DEADLINE)
        return sock.connect_ex((address, port)) != 0


def port_nobody_uses(family=socket.AF_INET):
    """Return a TCP port on which nobody listens at any address: the sockets on it are counted."""
    while True:
        port = free_port(family)
        if not listening(port):
            return port


def listening(port):
    """Return the inodes (set of int) of all sockets that listen on a TCP port, here."""
    return {inode for one, inode in tcp_listeners() if one == port}


def keepers(binder):
    """Return the PIDs of the processes that keep claims for what was adopted."""
    found = []
    for name in os.listdir('/proc'):
        if name.isdigit():
            try:
                with open('/proc/{}/cmdline'.format(name), 'rb') as file:
                    words = file.read().split(b'\0')
            except OSError:
                continue
            if binder.path.encode() in words and any(word.endswith(b'multibinderctl') for word in words):
                found.append(int(name))
    return found


class Stock(Running):
    """A haproxy as haproxy.service runs it: master and worker. `path` is its stats socket."""

    def __init__(self, binds, answer='stock', expose=' expose-fd listeners', words=(), extra=''):
        self.folder = tempfile.TemporaryDirectory(prefix='multibinder-stock-')
        self.path = os.path.join(self.folder.name, 'stats')
        config_path = os.path.join(self.folder.name, 'haproxy.cfg')
        with open(config_path, 'w') as file:
            file.write(config(binds, answer, 'stats socket {} level admin{}\n{}'.format(self.path, expose, extra)))
        # Readiness is the notification that systemd would get.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            address = os.path.join(self.folder.name, 'notify')
            notified.bind(address)
            Running.__init__(self, [HAPROXY, '-Ws', '-f', config_path] + list(words),
                             env=environment(NOTIFY_SOCKET=address))
            deadline = time.monotonic() + DEADLINE
            while True:
                ready = select.select([notified], [], [], max(0.0, deadline - time.monotonic()))[0]
                assert ready, 'not ready'
                if b'READY=1' in notified.recv(4096):
                    break

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        try:
            self.finish()
        finally:
            self.folder.cleanup()

    def finish(self):
        """Let it finish, as a stop with KillSignal=SIGUSR1 does; return when it has ended."""
        if self.process.returncode is None:
            self.stop(signal.SIGUSR1)


__all__ = [
    'Stock', 'Traffic', 'answer', 'answers', 'config', 'ctl', 'held', 'keepers',
    'listening', 'port_nobody_uses', 'refused', 'version_of']
