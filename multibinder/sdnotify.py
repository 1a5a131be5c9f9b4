"""The systemd side: telling it our state, giving it descriptors to keep, taking them back.

Responsible for the datagrams of sd_notify(3) and for LISTEN_FDS of sd_listen_fds(3). It decides nothing
about what is told.
"""

import array
import fcntl
import os
import socket

# PID 1 is asked to have read everything before we go on: it may be busy, but never this long.
BARRIER_SECONDS = 5.0
LISTEN_FDS_START = 3        # sd_listen_fds(3): SD_LISTEN_FDS_START


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
