"""What the kernel tells of the sockets of other processes, and copies of them.

Responsible for asking it, by the numbers of its interfaces where the oldest Python has no names for them.
What is to become of the sockets is not known here. Sources: pidfd_open(2), pidfd_getfd(2), proc(5),
sock_diag(7), netdevice(7).
"""

import fcntl
import os
import platform
import re
import socket
import struct

_PIDFD_OPEN, _PIDFD_GETFD = 434, 438    # the same number everywhere but on mips, which counts from higher up
_SIOCGSKNS = 0x894C                     # linux/sockios.h: the network namespace of a socket
_ACCEPTCON = 0x10000                    # __SO_ACCEPTCON in /proc/net/unix
_LINK = re.compile(r'socket:\[(\d+)\]$')
# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h: inet_diag_req_v2 (its id left empty), inet_diag_msg.
_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, _NLMSG_ERROR, _NLMSG_DONE = 4, 20, 0x301, 2, 3
_NETLINK_HEADER = struct.Struct('=IHHII')
_INET_DIAG_REQUEST = struct.Struct('=BBBxI48x')
_DIAG_PORT, _DIAG_INODE = 4, 68
_TCP_LISTEN = 10


def open_process(pid):
    """Return a pidfd (int, the caller's) of a process. Raises OSError."""
    return _syscall(_PIDFD_OPEN, pid, 0)


def copy_of(pidfd, fd):
    """Return a copy (int, the caller's, close-on-exec) of descriptor `fd` of the process behind a pidfd.
    Linux 5.6. Raises OSError."""
    return _syscall(_PIDFD_GETFD, pidfd, fd, 0)


def sockets_of(pid):
    """Return [(descriptor, inode)] of the sockets of a process, none for one that has ended. Raises OSError."""
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
    return found


def users_of(inodes):
    """Return {PID: set of inodes} of all processes but this one that have one of the sockets `inodes` (set
    of int) open, as far as this user may see."""
    users = {}
    for name in os.listdir('/proc') if inodes else ():
        if name.isdigit() and int(name) != os.getpid():
            try:
                found = {inode for _, inode in sockets_of(int(name))} & inodes
            except OSError:
                continue
            if found:
                users[int(name)] = found
    return users


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


def descends(pid, ancestors):
    """Tell whether a process is one of `ancestors` (PIDs) or descends from one."""
    while pid > 0:
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


def may_listen(pid):
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


def in_foreign_namespace(fd):
    """Tell whether a socket is in another network namespace than this process, as far as one may ask."""
    try:
        namespace = fcntl.ioctl(fd, _SIOCGSKNS)
    except OSError:
        return False
    try:
        return os.fstat(namespace).st_ino != os.stat('/proc/self/ns/net').st_ino
    finally:
        os.close(namespace)


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
