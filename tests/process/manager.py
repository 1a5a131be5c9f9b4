"""A service manager as far as sd_notify(3) goes, for what is to be told to one."""

import os
import socket
import struct

_DATAGRAM_MAX = 65536
_CREDENTIALS = struct.Struct('3i')      # unix(7): struct ucred is pid, uid, gid


class NotifySocket(object):
    """The receiving side of sd_notify.

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
