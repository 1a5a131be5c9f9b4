"""The listeners of a program that already runs, found and taken.

Responsible for choosing which of another process's descriptors are listeners that the binder can hold,
and for saying which are not; also for what goes with a listener from haproxy to haproxy. Nothing is
claimed here (see `keeper`).
"""

import errno
import os
import re
import socket
import stat

from multibinder import getsocks
from multibinder.endpoint import UNIX_PATH_MAX, Endpoint
from multibinder.errors import EndpointError, Error, reason_of
from multibinder.inventory import socket_id
from multibinder.listening import SO_DOMAIN, is_listening, read_back
from multibinder.sockets import copy_of, descendants, in_foreign_namespace, may_listen, open_process, sockets_of

_HAPROXY_TEMPORARY = re.compile(r'(/.*)\.\d+\.tmp$')


class Taken(object):
    """Listeners of another program: `listeners`, a list of (Endpoint, fd), the caller's to close, and
    `left`, a list of str: what cannot be held, and why."""

    def __init__(self):
        self.listeners = []
        self.left = []
        self._seen = set()

    def add(self, fd, namespace=b'', options=0):
        """Look at a descriptor (int, owned from here on) and keep it if the binder can hold it. `namespace`
        and `options` are those of a getsocks.Handed."""
        kept = False
        try:
            identity = socket_id(fd)
            if identity in self._seen:
                return
            self._seen.add(identity)
            endpoint, reason = holdable(fd, namespace)
            if reason is None and any(endpoint == other for other, _ in self.listeners):
                reason = '{} has several sockets (shards, or processes of their own): one of them is taken'.format(
                    endpoint)
            if reason is not None:
                self.left.append(reason)
            elif endpoint is not None:
                self.listeners.append((described(endpoint, options), fd))
                kept = True
        finally:
            if not kept:
                os.close(fd)

    def close(self):
        """Close every descriptor."""
        for _, fd in self.listeners:
            os.close(fd)
        self.listeners = []


def holdable(fd, namespace=b''):
    """Return (Endpoint, None) of a descriptor (int, borrowed) that the binder can hold, (None, sentence)
    of a listener that it cannot, (None, None) of what is no listener. `namespace` (bytes) is what its
    program calls the network namespace that it is in."""
    sock = None
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return None, None
        sock = socket.socket(fileno=os.dup(fd))
        domain = sock.getsockopt(socket.SOL_SOCKET, SO_DOMAIN)
        kind = sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
        if domain not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
            return None, None
        if kind == socket.SOCK_STREAM and not is_listening(sock):
            return None, None
        sock = socket.socket(domain, kind, 0, sock.detach())
        name = _shown(sock.getsockname())
        if kind != socket.SOCK_STREAM:
            return None, '{} is a datagram socket (UDP, QUIC): only stream sockets are held'.format(name)
        if namespace or in_foreign_namespace(fd):
            return None, '{} is in another network namespace{}'.format(
                name, ' ({})'.format(namespace.decode('utf-8', 'replace')) if namespace else '')
        if domain == socket.AF_UNIX and len(sock.getsockname()) > UNIX_PATH_MAX:
            return None, '{} is an abstract name that is filled with zeros up to its full length'.format(name)
        if domain == socket.AF_UNIX and _HAPROXY_TEMPORARY.match(name):
            return None, '{} is known to the kernel under the name of a temporary file'.format(final_name(name))
        return read_back(fd), None
    except EndpointError as error:
        return None, str(error)
    except OSError as error:
        return None, 'descriptor {}: {}'.format(fd, reason_of(error))
    finally:
        if sock is not None:
            sock.close()


def handed(endpoint, fd):
    """Return the Handed that offers a listener (int, it becomes the Handed's) to haproxy -x. The options
    are those that haproxy up to 2.2 would have sent for a `bind` line which asks for what `endpoint` does."""
    options = 0
    if endpoint.options.get('transparent') or endpoint.options.get('freebind'):
        options |= getsocks.FOREIGN
    if ':' in endpoint.address and endpoint.kind == 'tcp' and 'v6only' in endpoint.options:
        options |= getsocks.V6ONLY if endpoint.options['v6only'] else getsocks.V4V6
    return getsocks.Handed(fd, b'', os.fsencode(endpoint.options.get('interface', '')), options)


def described(endpoint, options):
    """Return `endpoint` with what the `options` (int) say that haproxy up to 2.2 sent with it. That the
    kernel has v6only off does not mean that the `bind` line asks for it, and the line is what haproxy
    compares."""
    if endpoint.kind != 'tcp' or ':' not in endpoint.address:
        return endpoint
    v6only = True if options & getsocks.V6ONLY or endpoint.options.get('v6only') else \
        False if options & getsocks.V4V6 else None
    rest = {name: value for name, value in endpoint.options.items() if name != 'v6only'}
    return Endpoint.tcp(endpoint.address, endpoint.port, v6only=v6only, **rest)


def final_name(path):
    """Return the path (str) at which haproxy's UNIX socket is found: it binds NAME.PID.tmp and renames it."""
    found = _HAPROXY_TEMPORARY.match(path)
    return found.group(1) if found else path


def from_haproxy(path):
    """Take the listeners of the haproxy whose stats socket is at `path` (str). Returns a Taken. Raises
    Error."""
    taken = Taken()
    for one in getsocks.ask(path):
        taken.add(one.fd, one.namespace, one.options)
    return taken


def from_process(pid):
    """Take the listeners of the process `pid` (int) and of its descendants: the workers of a master have
    some, the master others. Returns a Taken. Raises Error."""
    if not os.path.isdir('/proc/{}'.format(pid)):
        raise Error('cannot take listeners from pid {}: there is no such process'.format(pid))
    taken = Taken()
    try:
        for one in [pid] + descendants(pid):
            _take(taken, one)
    except BaseException:
        taken.close()
        raise
    return taken


def _take(taken, pid):
    try:
        candidate = may_listen(pid)
        found = [fd for fd, inode in sockets_of(pid) if candidate(inode)]
        if not found:
            return
        pidfd = open_process(pid)
    except OSError as error:
        raise _refusal(pid, error) from None
    try:
        for fd in found:
            try:
                taken.add(copy_of(pidfd, fd))
            except OSError as error:
                if error.errno not in (errno.EBADF, errno.ESRCH):   # closed, or ended, a moment ago
                    raise _refusal(pid, error) from None
    finally:
        os.close(pidfd)


def _refusal(pid, error):
    reason = reason_of(error)
    if error.errno == errno.ENOSYS:
        reason = 'the kernel has no pidfd_getfd, which came with Linux 5.6'
    elif error.errno in (errno.EPERM, errno.EACCES):
        reason += ' (it takes root, or CAP_SYS_PTRACE)'
    return Error('cannot take listeners from pid {}: {}'.format(pid, reason))


def _shown(name):
    if isinstance(name, (bytes, str)):
        return '@' + os.fsdecode(name)[1:].rstrip('\0') if name[:1] in (b'\0', '\0') else os.fsdecode(name)
    return ('[{}]:{}' if ':' in name[0] else '{}:{}').format(name[0], name[1])
