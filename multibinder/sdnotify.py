"""The systemd side: telling it our state, giving it descriptors to keep, taking them back.

Responsible for the datagrams of sd_notify(3), for LISTEN_FDS of sd_listen_fds(3), and for the receiving
end that a supervisor offers to its own children. It decides nothing about what is told.
"""

import array
import fcntl
import os
import socket
import struct

# PID 1 is asked to have read everything before we go on: it may be busy, but never this long.
BARRIER_SECONDS = 5.0
LISTEN_FDS_START = 3        # sd_listen_fds(3): SD_LISTEN_FDS_START
_DATAGRAM_MAX = 65536
_CREDENTIALS = struct.Struct('3i')      # unix(7): struct ucred is pid, uid, gid


def notify(*assignments, **kwargs):
    """Send assignments (str, such as 'READY=1') to the service manager in one datagram.

    `fds`, a list of int that stay the caller's, go along as SCM_RIGHTS. Returns whether they were sent:
    False without NOTIFY_SOCKET, or when the manager cannot be reached, which is never an error of ours.
    Source: sd_notify(3).
    """
    fds = kwargs.pop('fds', ())
    assert not kwargs, kwargs
    path = os.environ.get('NOTIFY_SOCKET')
    if not path:
        return False
    ancillary = []
    if fds:
        ancillary.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', fds)))
    address = '\0' + path[1:] if path.startswith('@') else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(BARRIER_SECONDS)
            sock.sendmsg(['\n'.join(assignments).encode('utf-8', 'surrogateescape')], ancillary, 0, address)
        return True
    except OSError:
        return False


def barrier():
    """Wait until the manager has read all that was sent before (BARRIER=1, systemd 246), at most
    BARRIER_SECONDS. An older manager closes the descriptor without a look, which ends the wait, too."""
    reader, writer = os.pipe()
    try:
        sent = notify('BARRIER=1', fds=[writer])
        os.close(writer)
        writer = None
        if sent:
            import select
            poll = select.poll()
            poll.register(reader, 0)    # POLLHUP is always told: the last writer is gone
            poll.poll(int(BARRIER_SECONDS * 1000))
    finally:
        os.close(reader)
        if writer is not None:
            os.close(writer)


def listen_fds():
    """Take the descriptors that the service manager passed: a list of (int, name), the caller's from
    here on, close-on-exec. The variables are removed, so that nobody takes them twice. Source:
    sd_listen_fds(3)."""
    pid = os.environ.pop('LISTEN_PID', '')
    count = os.environ.pop('LISTEN_FDS', '')
    names = os.environ.pop('LISTEN_FDNAMES', '').split(':')
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    passed = []
    for index in range(int(count)):
        fd = LISTEN_FDS_START + index
        try:
            fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.fcntl(fd, fcntl.F_GETFD) | fcntl.FD_CLOEXEC)
        except OSError:
            continue
        passed.append((fd, names[index] if index < len(names) else ''))
    return passed


class NotifySocket(object):
    """The receiving side of sd_notify, for children that are to tell us, and not systemd, their state.

    An abstract name that the kernel chose: no file is left behind. Each datagram carries its sender's
    PID, since anybody on this network namespace may send.
    """

    def __init__(self):
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._sock.bind('')     # unix(7): autobind
        name = self._sock.getsockname()
        name = name if isinstance(name, bytes) else name.encode('utf-8', 'surrogateescape')
        self.address = '@' + name[1:].decode('ascii')   # what goes into a child's NOTIFY_SOCKET

    def fileno(self):
        return self._sock.fileno()

    def close(self):
        self._sock.close()

    def receive(self):
        """Return what has arrived, a list of (pid, dict of assignments), without waiting. Descriptors
        that came along are closed: a child has none to give."""
        arrived = []
        while True:
            try:
                data, ancillary, _, _ = self._sock.recvmsg(
                    _DATAGRAM_MAX, socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(4 * 253),
                    getattr(socket, 'MSG_CMSG_CLOEXEC', 0x40000000))
            except BlockingIOError:
                return arrived
            pid = 0
            for level, kind, payload in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                    pid = _CREDENTIALS.unpack_from(payload)[0]
                elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    for (fd,) in struct.iter_unpack('i', payload[:len(payload) // 4 * 4]):
                        os.close(fd)
            lines = data.decode('utf-8', 'replace').split('\n')
            arrived.append((pid, dict(line.split('=', 1) for line in lines if '=' in line)))
