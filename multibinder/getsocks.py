"""HAProxy's way to hand listeners from one process to the next, from 1.8 on.

Who wants them connects to a UNIX socket and sends "_getsocks\\n"; the answer is their number, an int, and
then messages of at most 252 descriptors as SCM_RIGHTS, each with a description of every descriptor in its
bytes: length and name of the network namespace, length and name of the interface, an int of options. The
receiver acknowledges each message with an int. A stats socket with `expose-fd listeners` gives, and
`haproxy -x SOCKET` takes.

Responsible for both sides of this exchange and for every descriptor in it until it is handed over. It
knows nothing of endpoints, nor of what becomes of the listeners. Source: HAProxy's src/cli.c, `_getsocks`,
and src/sock.c, `sock_get_old_sockets` (2.2: src/haproxy.c, `get_old_sockets`).
"""

import array
import os
import socket
import struct

from multibinder import wire
from multibinder.errors import Error, ProtocolError, reason_of

QUESTION = b'_getsocks\n'
TIMEOUT = 5.0
HAPROXY_PATIENCE = 1.0      # seconds that haproxy waits for each part of an answer
MAX_LISTENERS = 65536

# Options that haproxy compares before it takes a listener. Up to 2.2 they travel with it; from 2.3 on it
# asks the socket instead and sends 0. HAProxy's include/haproxy/listener-t.h, LI_O_*; the same since 1.8.
FOREIGN = 0x0002
V6ONLY = 0x0400
V4V6 = 0x0800

_INT = struct.Struct('i')
_RECEIVE_FLAGS = getattr(socket, 'MSG_CMSG_CLOEXEC', 0x40000000)
_ANCILLARY_SIZE = socket.CMSG_SPACE(wire.MAX_FDS * 4)
_DESCRIPTION_MAX = 1 + 255 + 1 + 255 + _INT.size
_READ_SIZE = wire.MAX_FDS * _DESCRIPTION_MAX


class HandsOutNone(Error):
    """Nobody refused, and nothing came: haproxy answers so to who may not ask, and where it has bound
    nothing itself."""


class Handed(object):
    """A listener that is handed over: `fd` (int), the names of its `namespace` and `interface` (bytes,
    mostly empty), and the `options` (int) that it comes with. The descriptor is the holder's to close."""

    __slots__ = ('fd', 'namespace', 'interface', 'options')

    def __init__(self, fd, namespace=b'', interface=b'', options=0):
        self.fd = fd
        self.namespace = namespace
        self.interface = interface
        self.options = options

    def description(self):
        """Return the bytes that go with the descriptor."""
        return b''.join((bytes((len(self.namespace),)), self.namespace,
                         bytes((len(self.interface),)), self.interface, _INT.pack(self.options)))


def ask(path, timeout=TIMEOUT):
    """Return the listeners of the haproxy whose stats socket is at `path` (str): a list of Handed, whose
    descriptors are the caller's and close-on-exec. `timeout` in seconds for each part of the exchange.
    Raises Error with a sentence that says what is missing."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout)
        try:
            sock.connect(path)
        except OSError as error:
            raise Error('cannot connect to {}: {}'.format(path, _reason(error, timeout))) from None
        try:
            return receive(sock)
        except HandsOutNone as error:
            raise HandsOutNone('cannot take listeners from {}: {}'.format(path, error)) from None
        except ProtocolError as error:
            raise Error('cannot take listeners from {}: {}'.format(path, error)) from None
        except OSError as error:
            raise Error('cannot take listeners from {}: {}'.format(path, _reason(error, timeout))) from None


def receive(sock):
    """Ask for the listeners on a connected socket, as haproxy -x does. Returns a list of Handed, the
    caller's. Raises ProtocolError, OSError; every descriptor that came is closed then."""
    sock.sendall(QUESTION)
    count = _count(sock)
    fds = []
    described = b''
    try:
        while len(fds) < count:
            data, new = _message(sock)
            fds.extend(new)
            described += data
            if not data:
                raise ProtocolError('it announced {} listeners and sent {}'.format(count, len(fds)))
            if len(fds) > count or len(described) > count * _DESCRIPTION_MAX:
                raise ProtocolError('it announced {} listeners and sent more'.format(count))
            try:
                sock.sendall(_INT.pack(len(fds)))
            except OSError:
                pass    # haproxy may close behind its last message; if it was not the last, the next read tells
        return [Handed(fd, *words) for fd, words in zip(fds, _descriptions(described, count))]
    except BaseException:
        wire.close_all(fds)
        raise


def serve(sock, listeners, timeout=HAPROXY_PATIENCE):
    """Hand `listeners` (list of Handed, whose descriptors stay the caller's) to the haproxy at the other
    end of a connected socket. `timeout` in seconds for each part. Raises ProtocolError, OSError."""
    sock.settimeout(timeout)
    question = b''
    while not question.endswith(b'\n'):
        data = sock.recv(len(QUESTION) - len(question))
        question += data
        if not data or not QUESTION.startswith(question):
            raise ProtocolError('it asked {!r} and not for listeners'.format(question))
    sock.sendall(_INT.pack(len(listeners)))
    for start in range(0, len(listeners), wire.MAX_FDS):
        batch = listeners[start:start + wire.MAX_FDS]
        data = b''.join(one.description() for one in batch)
        sent = wire.send(sock, data, [one.fd for one in batch])
        if sent < len(data):
            sock.sendall(data[sent:])
        if not sock.recv(_INT.size):
            raise ProtocolError('it went away after {} of {} listeners'.format(start, len(listeners)))


class Offer(object):
    """A socket at `path` (str) from which one haproxy after the other can take `listeners` (list of Handed,
    this object's, closed with it). Only the user of this process, and root, can connect.

    `fileno()` gets readable when somebody connects; `accept()` serves him. `taken` counts those who got
    everything.
    """

    def __init__(self, path, listeners):
        """Raises Error when no socket can be made; `listeners` are closed then, too."""
        self.path = path
        self.listeners = listeners
        self.taken = 0
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            mask = os.umask(0o177)
            try:
                self._sock.bind(path)
            finally:
                os.umask(mask)
            self._sock.listen(16)
            self._sock.setblocking(False)
        except OSError as error:
            self._sock.close()      # what stands at the path is not ours to remove
            self._sock = None
            self.close()
            raise Error('cannot offer listeners at {}: {}'.format(path, reason_of(error))) from None

    def fileno(self):
        return self._sock.fileno()

    def accept(self):
        """Serve whoever has connected. Returns None, or why he did not get the listeners (str)."""
        try:
            connection, _ = self._sock.accept()
        except OSError:
            return None     # gone again
        with connection:
            try:
                serve(connection, self.listeners)
                self.taken += 1
                return None
            except (OSError, ProtocolError) as error:
                return reason_of(error) if isinstance(error, OSError) else str(error)

    def close(self):
        """Close the socket and the listeners, and remove the path."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None
            try:
                os.unlink(self.path)
            except OSError:
                pass
        wire.close_all(one.fd for one in self.listeners)
        self.listeners = []


def _count(sock):
    data = b''
    while len(data) < _INT.size:
        more = sock.recv(_INT.size - len(data))
        if not more:
            # haproxy says no more than this to who may not have them.
            raise HandsOutNone('it hands out none: its `stats socket` line needs `expose-fd listeners`, and haproxy at '
                               'least one address to listen on that it has bound itself')
        data += more
    count = _INT.unpack(data)[0]
    if not 0 <= count <= MAX_LISTENERS:
        sock.settimeout(0.2)
        try:
            data += sock.recv(200)
        except OSError:
            pass
        raise ProtocolError('it does not know _getsocks (haproxy 1.8 and later do) and answers {!r}'.format(
            data.decode('utf-8', 'replace').strip()))
    return count


def _message(sock):
    """Read one message. Returns (bytes, list of int)."""
    data, ancillary, flags, _ = sock.recvmsg(_READ_SIZE, _ANCILLARY_SIZE, _RECEIVE_FLAGS)
    fds = array.array('i')
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(payload[:len(payload) - len(payload) % fds.itemsize])
    if flags & socket.MSG_CTRUNC:
        wire.close_all(fds)
        raise ProtocolError('descriptors of a message were lost: the table of this process is full')
    return data, list(fds)


def _descriptions(data, count):
    """Return [(namespace, interface, options)] out of the bytes that came with `count` descriptors."""
    found = []
    position = 0
    try:
        for _ in range(count):
            names = []
            for _ in range(2):
                end = position + 1 + data[position]
                names.append(data[position + 1:end])
                position = end
            found.append((names[0], names[1], _INT.unpack_from(data, position)[0]))
            position += _INT.size
    except (IndexError, struct.error):
        raise ProtocolError('its description of {} listeners ends in the middle'.format(count)) from None
    return found


def _reason(error, timeout):
    if isinstance(error, (socket.timeout, BlockingIOError)):
        return 'no answer in {:g} s'.format(timeout)
    return reason_of(error)
