"""Who is at the other end of a connection: PID, user and systemd unit, for logs and `list`.

Sources: unix(7), SO_PEERCRED; cgroups(7), /proc/PID/cgroup.
"""

import socket
import struct

_CREDENTIALS = struct.Struct('3i')


def credentials(sock):
    """Return (pid, uid, gid) of the process that connected (int each)."""
    return _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))


def unit_of(pid):
    """Return the name of the systemd unit in which a process runs (str), or None when there is none, or
    no such process any more."""
    try:
        with open('/proc/{}/cgroup'.format(pid), errors='replace') as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    for line in lines:
        number, _, rest = line.partition(':')
        controllers, _, path = rest.partition(':')
        if controllers in ('', 'name=systemd'):
            for part in reversed(path.split('/')):
                if part.endswith(('.service', '.scope')):
                    return part
    return None


def describe(pid, uid=None):
    """Return a process in words for a log line: 'pid 12 (haproxy-multi@foo.service)', and its user
    where that is not root."""
    words = [word for word in (unit_of(pid), 'uid {}'.format(uid) if uid else None) if word]
    return 'pid {}'.format(pid) + (' ({})'.format(', '.join(words)) if words else '')
