"""The listeners of a program that already runs: found, taken, and kept until it has ended.

Responsible for choosing which of another process's descriptors are listeners that the binder can hold,
for saying which are not, and for the one who keeps their claim meanwhile. Sources: pidfd_open(2) and
pidfd_getfd(2) (Linux 5.6), proc(5), sock_diag(7); `multibinder.getsocks` for haproxy's own way.
"""

import errno
import fcntl
import os
import platform
import re
import select
import socket
import stat
import struct

from multibinder import getsocks
from multibinder.client import Client
from multibinder.endpoint import UNIX_PATH_MAX, Endpoint
from multibinder.errors import EndpointError, Error, reason_of
from multibinder.inventory import socket_id
from multibinder.listening import SO_DOMAIN, is_listening, read_back

_PIDFD_OPEN, _PIDFD_GETFD = 434, 438    # the same number everywhere but on mips, which counts from higher up
_SIOCGSKNS = 0x894C                     # linux/sockios.h: the network namespace of a socket
# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h: inet_diag_req_v2 (its id left empty), inet_diag_msg.
_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, _NLMSG_ERROR, _NLMSG_DONE = 4, 20, 0x301, 2, 3
_NETLINK_HEADER = struct.Struct('=IHHII')
_INET_DIAG_REQUEST = struct.Struct('=BBBxI48x')
_DIAG_PORT, _DIAG_INODE = 4, 68
_TCP_LISTEN = 10
_ACCEPTCON = 0x10000                    # __SO_ACCEPTCON in /proc/net/unix
_LINK = re.compile(r'socket:\[(\d+)\]$')
_HAPROXY_TEMPORARY = re.compile(r'(/.*)\.\d+\.tmp$')
KEEPER = b'multibinderctl'   # the command that a Keeper runs in
TICK_MS = 1000      # between two looks, on a kernel without pidfd_open


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
        if namespace or _foreign_namespace(fd):
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


def descendants(pid):
    """Return the PIDs (list of int) of all present descendants of a process."""
    children = {}
    for name in os.listdir('/proc'):
        if name.isdigit():
            children.setdefault(_parent(int(name)), []).append(int(name))
    found = list(children.get(pid, ()))
    for one in found:       # grows meanwhile
        found.extend(children.get(one, ()))
    return found


def users_of(inodes):
    """Return {PID: set of inodes} of all processes but this one that have one of the sockets `inodes` (set
    of int) open, as far as this user may see."""
    users = {}
    for name in os.listdir('/proc'):
        if name.isdigit() and int(name) != os.getpid():
            found = {inode for _, inode in _sockets_of(int(name))} & inodes
            if found:
                users[int(name)] = found
    return users


class Keeper(object):
    """Keeps the claim on adopted listeners for as long as somebody who is no client uses them.

    Without it the linger time would end, and the binder would shut down, for everybody, what the old
    program still accepts on. To be used in a process of its own, whose claim it is.
    """

    def __init__(self, path, listeners):
        """`path` (str or None) is the binder's; `listeners` a list of (Endpoint, fd), to be adopted."""
        self._path = path
        self._listeners = listeners
        self._inodes = {}       # inode -> Endpoint, of what is kept

    def adopt(self):
        """Give them to the binder, claimed by this process. Returns a list of (Endpoint, outcome of
        Client.adopt). Raises Error."""
        with Client(self._path) as client:
            outcomes = client.adopt(self._listeners, lease='process')
        for (endpoint, fd), outcome in zip(self._listeners, outcomes):
            if outcome != 'other':
                self._inodes[os.fstat(fd).st_ino] = endpoint
        return [(endpoint, outcome) for (endpoint, _), outcome in zip(self._listeners, outcomes)]

    def keep(self):
        """Wait until nobody uses them but those who have a claim of their own, and what these have started;
        then release them, at once: a port that nobody accepts on is to be refused, and is not to stand in
        a restart's way."""
        strangers = self._look()
        while self._inodes:
            _wait_for_end(strangers)
            strangers = self._look()

    def _look(self):
        """Release what no stranger uses; return the PIDs (set) of the strangers that use the rest."""
        try:
            with Client(self._path) as client:
                holders = {}        # inode -> PIDs of the binder and of those who have a claim
                binder = client.call('status')['pid']
                for one in client.call('list'):
                    pids = {claim['pid'] for claim in one['claims'] if claim['pid']}
                    if any(is_keeper(pid) and pid < os.getpid() for pid in pids):
                        self._inodes.pop(one['inode'], None)    # it does the same, and needs no second
                    holders[one['inode']] = pids
                strangers = {}      # inode -> PIDs
                for pid, inodes in users_of(set(self._inodes)).items():
                    for inode in inodes:
                        if pid != binder and not _descends(pid, holders.get(inode, ())):
                            strangers.setdefault(inode, set()).add(pid)
                done = [inode for inode in self._inodes if inode not in strangers]
                if done:
                    client.release([self._inodes.pop(inode) for inode in done], lease='process')
                return set().union(*strangers.values()) if strangers else set()
        except Error:
            self._inodes = {}       # the binder has gone, or knows better: the claim ends with this process
            return set()


def is_keeper(pid):
    """Tell whether the process `pid` (int) is another one that keeps claims for what was adopted."""
    try:
        with open('/proc/{}/cmdline'.format(pid), 'rb') as file:
            return pid != os.getpid() and any(
                os.path.basename(word) == KEEPER for word in file.read().split(b'\0')[:3])
    except OSError:
        return False


def _descends(pid, ancestors):
    """Tell whether a process is one of `ancestors` (PIDs) or descends from one."""
    while pid > 1:
        if pid in ancestors:
            return True
        pid = _parent(pid)
    return False


def _parent(pid):
    """Return the PID of a process's parent, 0 when it has ended."""
    try:
        with open('/proc/{}/stat'.format(pid), errors='replace') as file:
            return int(file.read().rpartition(')')[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def _wait_for_end(pids):
    """Wait until one of the processes has ended; at once when there is none."""
    poll = select.poll()
    opened = []
    timeout = None
    try:
        for pid in pids:
            try:
                pidfd = _syscall(_PIDFD_OPEN, pid, 0)
            except OSError as error:
                if error.errno == errno.ESRCH:
                    return
                timeout = TICK_MS
                continue
            opened.append(pidfd)
            poll.register(pidfd, select.POLLIN)
        if opened or timeout:
            poll.poll(timeout)
    finally:
        for pidfd in opened:
            os.close(pidfd)


def _take(taken, pid):
    may_listen = _may_listen(pid)
    sockets = [(fd, inode) for fd, inode in _sockets_of(pid, True) if may_listen(inode)]
    if not sockets:
        return
    try:
        pidfd = _syscall(_PIDFD_OPEN, pid, 0)
    except OSError as error:
        raise _refusal(pid, error) from None
    try:
        for fd, _ in sockets:
            try:
                taken.add(_syscall(_PIDFD_GETFD, pidfd, fd, 0))
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


def _sockets_of(pid, loudly=False):
    """Return [(descriptor, inode)] of the sockets of a process."""
    found = []
    directory = '/proc/{}/fd'.format(pid)
    try:
        for name in os.listdir(directory):
            try:
                link = _LINK.match(os.readlink(directory + '/' + name))
            except OSError:
                continue
            if link:
                found.append((int(name), int(link.group(1))))
    except FileNotFoundError:
        pass
    except OSError as error:
        if loudly:
            raise _refusal(pid, error) from None
    return found


def tcp_listeners():
    """Return [(port, inode)] of all TCP listeners in this network namespace (int each). Not out of
    /proc/net/tcp, which takes seconds where many connections are in TIME_WAIT. Raises OSError."""
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as sock:
            request = _INET_DIAG_REQUEST.pack(family, socket.IPPROTO_TCP, 0, 1 << _TCP_LISTEN)
            sock.sendall(_NETLINK_HEADER.pack(_NETLINK_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY,
                                              _NLM_F_REQUEST_DUMP, 1, 0) + request)
            done = False
            while not done:
                data = sock.recv(65536)
                position = 0
                while position < len(data):
                    length, kind, _, _, _ = _NETLINK_HEADER.unpack_from(data, position)
                    if kind == _NLMSG_ERROR:
                        code = -struct.unpack_from('i', data, position + _NETLINK_HEADER.size)[0]
                        raise OSError(code, os.strerror(code))
                    done = done or kind == _NLMSG_DONE
                    if kind == _SOCK_DIAG_BY_FAMILY:
                        start = position + _NETLINK_HEADER.size
                        found.append((struct.unpack_from('!H', data, start + _DIAG_PORT)[0],
                                      struct.unpack_from('I', data, start + _DIAG_INODE)[0]))
                    position += max(length + 3 & ~3, _NETLINK_HEADER.size)
    return found


def _may_listen(pid):
    """Return a function that tells of a socket's inode whether it may be a listener, or a datagram socket,
    of the process: what surely is neither, such as its connections, need not be touched."""
    try:
        known = {inode for _, inode in tcp_listeners()}
        for table, column in (('udp', 9), ('udp6', 9), ('unix', 6)):
            with open('/proc/{}/net/{}'.format(pid, table), errors='replace') as file:
                for line in file.read().splitlines()[1:]:
                    words = line.split()
                    if table != 'unix' or int(words[3], 16) & _ACCEPTCON:
                        known.add(int(words[column]))
        if os.stat('/proc/{}/ns/net'.format(pid)).st_ino == os.stat('/proc/self/ns/net').st_ino:
            return known.__contains__
    except OSError:
        pass
    return lambda inode: True


def _foreign_namespace(fd):
    """Tell whether a socket is in another network namespace than this process, as far as one may ask."""
    try:
        namespace = fcntl.ioctl(fd, _SIOCGSKNS)
    except OSError:
        return False
    try:
        return os.fstat(namespace).st_ino != os.stat('/proc/self/ns/net').st_ino
    finally:
        os.close(namespace)


def _shown(name):
    if isinstance(name, (bytes, str)):
        return '@' + os.fsdecode(name)[1:].rstrip('\0') if name[:1] in (b'\0', '\0') else os.fsdecode(name)
    return ('[{}]:{}' if ':' in name[0] else '{}:{}').format(name[0], name[1])


def _syscall(number, *arguments):
    """Call the kernel, which the oldest Python cannot. Returns an int; raises OSError. A new descriptor
    is close-on-exec and the caller's."""
    import ctypes       # here, since it would cost a wrapper half a megabyte for good
    if platform.machine().startswith('mips'):
        number += 4000 if struct.calcsize('P') == 4 else 5000
    result = ctypes.CDLL(None, use_errno=True).syscall(
        ctypes.c_long(number), *[ctypes.c_long(one) for one in arguments])
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
