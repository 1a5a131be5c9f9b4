"""The control socket: created by one binder only, handed on from one process to the next, removed.

Sources: unix(7), flock(2).
"""

import errno
import fcntl
import grp
import os
import socket
import stat

from multibinder import peer
from multibinder.errors import EndpointError, Error, reason_of

BACKLOG = 4096          # clients that may wait while we are re-executed; the kernel cuts it to somaxconn
FORMER_PATH = 60.0      # seconds for which a path that is no longer ours is served


class Control(object):
    """A listening control socket. Owns it; `path` is its file, `until` the moment (time.monotonic) at
    which a former path is given up, None for the present one."""

    def __init__(self, sock, path, until=None):
        self.sock = sock
        self.path = path
        self.until = until
        sock.setblocking(False)

    @classmethod
    def create(cls, path):
        """Return a new control socket at `path`, mode 0600. A stale file of a dead binder is replaced;
        raises Error when another binder answers there, or the system refuses."""
        attempt = 'cannot open the control socket {}'.format(path)
        try:
            # Of two that start at once and find the same stale file, the second would remove the first one's.
            lock = _lock(path + '.lock')
            try:
                _remove_stale(path, attempt)
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                umask = os.umask(0o177)
                try:
                    sock.bind(path)
                finally:
                    os.umask(umask)
                sock.listen(BACKLOG)
            finally:
                os.unlink(path + '.lock')
                os.close(lock)
        except OSError as error:
            raise Error('{}: {}'.format(attempt, _reason(error))) from None
        return cls(sock, path)

    @classmethod
    def inherited(cls, fileno, path=None, until=None):
        """Return the control socket behind a descriptor (owned from here on) that the process before us,
        or systemd, kept. Raises EndpointError when it is none; the descriptor is the caller's then."""
        try:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno)
            try:
                name = sock.getsockname()
                if not isinstance(name, str) or not name.startswith('/'):
                    raise EndpointError('descriptor {} is no control socket'.format(fileno))
                sock.set_inheritable(False)
            except BaseException:
                sock.detach()
                raise
        except OSError as error:
            raise EndpointError('descriptor {} is no control socket: {}'.format(fileno, reason_of(error))) from None
        return cls(sock, path or name, until)

    def reachable(self):
        """Tell whether the file at our path leads here. Somebody may have removed it."""
        try:
            return stat.S_ISSOCK(os.lstat(self.path).st_mode)
        except OSError:
            return False

    def permit(self, mode, group):
        """Set the file's mode (int) and group (name or None), and give it to root where we may: who looks
        at it is to see who can connect. Raises Error."""
        try:
            if group is not None:
                os.chown(self.path, -1, grp.getgrnam(group).gr_gid)
            os.chmod(self.path, mode)
            try:
                os.chown(self.path, 0, -1)
            except PermissionError:
                pass    # a binder of an ordinary user
        except KeyError:
            raise Error('cannot give the control socket {} to group {}: no such group'.format(
                self.path, group)) from None
        except OSError as error:
            raise Error('cannot set mode and group of the control socket {}: {}'.format(
                self.path, reason_of(error))) from None

    def close(self, unlink):
        """Close the socket, and with `unlink` remove its file."""
        if unlink:
            try:
                os.unlink(self.path)
            except OSError:
                pass    # it is gone, or its directory is
        self.sock.close()


def _lock(path):
    """Return a descriptor that holds the lock file at `path`, which its owner removes before closing."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Who held it before us has removed it: then we hold a file that nobody else will find.
            if os.path.samestat(os.fstat(lock), os.lstat(path)):
                return lock
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


def _remove_stale(path, attempt):
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise Error('{}: a file that is no socket is in the way'.format(attempt))
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
            who = peer.describe(peer.credentials(probe)[0])
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            who = 'one that is busy'
    raise Error('{}: another binder answers there ({})'.format(attempt, who))


def _reason(error):
    if error.errno == errno.ENAMETOOLONG or 'too long' in str(error):
        return 'the path is longer than the 107 bytes that a socket address has'
    return reason_of(error)
