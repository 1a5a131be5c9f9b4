"""Who waits for the outcome of a reload.

Responsible for the instance's control socket: a client connects, is answered once no reload is under way
or wanted, and gets the status and the reason of the last one. The signal that asks for a reload comes
before the connection that waits for it, so a client never gets the answer of the reload before. Also
for the waiting side, and for there being one wrapper an instance.
"""

import os
import socket

from multibinder.errors import ConfigFileError, HaproxyError, reason_of

CLIENTS_MAX = 64
_ANSWER_MAX = 1 << 20


class Control(object):
    """The listening side, at `path` (str); only the user that runs the instance can connect."""

    def __init__(self, loop, path):
        """Raises ConfigFileError when another wrapper answers at `path`, or no socket can be made there. The
        socket of a wrapper that was killed is replaced."""
        self._loop = loop
        self._path = path
        self._waiting = []
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if _answers(path):
                raise ConfigFileError('another wrapper supervises this instance: it answers on {}'.format(path))
            _unlink(path)
            mask = os.umask(0o177)
            try:
                self._sock.bind(path)
            finally:
                os.umask(mask)
            self._sock.listen(CLIENTS_MAX)
            self._sock.setblocking(False)
        except OSError as error:
            self._sock.close()
            raise ConfigFileError('cannot make the control socket {}: {}'.format(path, reason_of(error)))
        except BaseException:
            self._sock.close()
            raise
        loop.watch(self._sock, self._accept)

    def answer(self, status, reason):
        """Tell everybody who waits: `status` (int, 0 for a reload that succeeded) and `reason` (str)."""
        waiting, self._waiting = self._waiting, []
        for connection in waiting:
            try:
                connection.sendall('{}\n{}'.format(status, reason).encode('utf-8', 'backslashreplace'))
            except OSError:
                pass        # gone, or not reading: its loss
            connection.close()

    @property
    def waited_for(self):
        """Whether anybody waits."""
        return bool(self._waiting)

    def close(self):
        """Close and remove the socket; who waits gets no answer."""
        for connection in self._waiting:
            connection.close()
        self._waiting = []
        self._loop.forget(self._sock)
        self._sock.close()
        _unlink(self._path)

    def _accept(self):
        try:
            connection, _ = self._sock.accept()
        except OSError:
            return
        connection.setblocking(False)
        if len(self._waiting) >= CLIENTS_MAX:
            connection.close()
        else:
            self._waiting.append(connection)


def wait_for_reload(path, name, timeout=None):
    """Wait until no reload of the instance `name` is under way, asking at `path` (str), at most `timeout`
    seconds. Returns (status, reason) of the last one. Raises HaproxyError when no wrapper answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout)
        received = b''
        try:
            sock.connect(path)
            while len(received) < _ANSWER_MAX:
                data = sock.recv(65536)
                if not data:
                    break
                received += data
        except socket.timeout:
            raise HaproxyError('the reload of {} has not ended after {:g} s'.format(name, timeout))
        except OSError as error:
            raise HaproxyError('no wrapper of instance {} answers on {}: {}'.format(name, path, reason_of(error)))
    status, _, reason = received.decode('utf-8', 'replace').partition('\n')
    if not status.isdigit():
        raise HaproxyError('the wrapper of instance {} ended before its reload did'.format(name))
    return int(status), reason


def _answers(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.settimeout(1.0)
            sock.connect(path)
            return True
        except socket.timeout:
            return True         # its queue is full: somebody is there
        except OSError:
            return False


def _unlink(path):
    try:
        os.unlink(path)
    except OSError:
        pass
