"""The clients of the binder: let in, served in turn, held to their deadlines, sent away.

Responsible for no client ever keeping the others waiting: nothing here blocks, one that does not read is
not read from, one that is silent without a lease makes room. What a request means is for `methods`.
"""

import errno
import time

from multibinder import log, wire
from multibinder.connection import Connection
from multibinder.errors import WIRE_INVALID_REQUEST, ProtocolError, reason_of
from multibinder.loop import FAILED, READ, WRITE
from multibinder.methods import LATER, SPARE_DESCRIPTORS

MAX_CLIENTS = 8192
SWEEP = 1.0             # seconds between two looks at the deadlines, while there are any
ACCEPT_PAUSE = 1.0      # seconds, when there is no descriptor for another client
WIRE_INTERNAL_ERROR = -32603


class Clients(object):
    """All connections of a binder, on a Loop, answered by Methods."""

    def __init__(self, loop, methods):
        self._loop = loop
        self._methods = methods
        self._connections = {}      # descriptor -> Connection
        self._timed = set()         # connections whose deadline counts
        self._doors = []            # the control sockets on which clients are let in
        self._open_at = None        # when they are opened again, after the descriptors ran out

    def __iter__(self):
        return iter(list(self._connections.values()))

    def find(self, fileno):
        """Return the Connection with a descriptor."""
        return self._connections[fileno]

    def open_door(self, sock):
        """Let clients in on a listening control socket, which stays the caller's."""
        self._doors.append(sock)
        self._loop.register(sock.fileno(), self._on_accept, sock)

    def close_door(self, sock):
        """Let nobody in on a control socket any more; who is in stays."""
        self._doors.remove(sock)
        self._loop.unregister(sock.fileno())

    def add(self, connection):
        """Serve a connection; it is owned here from now on."""
        fileno = connection.sock.fileno()
        self._connections[fileno] = connection
        self._methods.connections = len(self._connections)
        self._timed.add(connection)
        self._loop.hurry(time.monotonic() + SWEEP)
        self._loop.register(fileno, self._on_client, connection, WRITE if connection.outbox else READ)

    def drop(self, connection):
        """Close a connection; its leases end."""
        fileno = connection.sock.fileno()
        if self._connections.get(fileno) is not connection:
            return
        self._loop.unregister(fileno)
        del self._connections[fileno]
        self._methods.connections = len(self._connections)
        self._timed.discard(connection)
        self._methods.holder_gone(connection)
        self._loop.hurry()
        connection.close()

    def serve(self, connection):
        """Answer the requests that have come, until one reply has to wait for the client to read."""
        while connection.todo and not connection.outbox:
            message = connection.todo.popleft()
            try:
                outcome = self._methods.handle(connection, message)
            except Exception as error:      # a fault of ours must not end the service of all others
                log.error('internal error on a request of {}: {!r}'.format(connection.describe(), error))
                outcome = wire.error(None, WIRE_INTERNAL_ERROR, 'internal error, see the log of the binder'), ()
            if outcome is not LATER and not self.reply(connection, *outcome):
                return
        broken = connection.splitter.broken
        if broken is not None and not connection.outbox and not connection.closing:
            self._refuse(connection, broken.wire_code, str(broken))
            return
        if connection.arrived:
            count = connection.discard()
            if count:
                log.warning('{} sent {} descriptors that nobody asked for; closed'.format(connection.describe(), count))
            elif len(connection.arrived) > 2 * wire.MAX_FDS:
                log.warning('{} sent too many descriptors'.format(connection.describe()))
                self.drop(connection)
                return
        self.retime(connection)

    def reply(self, connection, data, fds=()):
        """Send a reply, `fds` borrowed. Returns False when the connection is closed by now."""
        if self._connections.get(connection.sock.fileno()) is not connection:
            return False
        try:
            if connection.send(data, fds):
                if connection.closing:
                    self.drop(connection)
                    return False
                return True
            # Nothing more is read of a client before it has read what it asked for.
            self._loop.expect(connection.sock.fileno(), WRITE)
            self.retime(connection)
            return True
        except OSError as error:
            if error.errno == errno.EMFILE:
                log.error('no descriptor left to keep a reply for {}'.format(connection.describe()))
            self.drop(connection)
            return False

    def retime(self, connection):
        """Note whether the connection's deadline counts: a lease may be silent for ever."""
        if connection.outbox or connection.splitter.half or not self._methods.inventory.has_lease(connection):
            if connection not in self._timed:
                self._timed.add(connection)
                self._loop.hurry(time.monotonic() + SWEEP)
        else:
            self._timed.discard(connection)

    def tick(self, now):
        """Do what is due. Returns the moment at which something is due next (inf: never)."""
        for connection in [one for one in self._timed if one.deadline <= now]:
            self._overdue(connection)
        if self._open_at is not None and now >= self._open_at:
            self._open_at = None
            for sock in self._doors:
                self._loop.register(sock.fileno(), self._on_accept, sock)
        due = float('inf') if self._open_at is None else self._open_at
        return min(due, now + SWEEP) if self._timed else due

    def _on_accept(self, door, events):
        try:
            sock, _ = door.accept()
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                # It would be told of again at once, and again.
                log.error('cannot accept another client: {}'.format(reason_of(error)))
                self._open_at = time.monotonic() + ACCEPT_PAUSE
                self._loop.hurry(self._open_at)
                for each in self._doors:
                    self._loop.unregister(each.fileno())
            return
        room = min(MAX_CLIENTS, self._methods.nofile - SPARE_DESCRIPTORS // 2 - len(self._methods.inventory))
        if len(self._connections) >= room and self._timed:
            # The one that is silent for longest must not keep the others out.
            silent = min(self._timed, key=lambda one: one.deadline)
            log.warning('too many clients: closed that of {}'.format(silent.describe()))
            self.drop(silent)
        self.add(Connection(sock))

    def _on_client(self, connection, events):
        try:
            if events & WRITE and connection.flush():
                self._loop.expect(connection.sock.fileno(), READ)
                if connection.closing:
                    self.drop(connection)
                    return
            if events & (READ | FAILED) and not connection.outbox:
                if not connection.read():
                    self.drop(connection)
                    return
        except BlockingIOError:
            return
        except OSError:
            self.drop(connection)
            return
        except ProtocolError as error:
            self._refuse(connection, error.wire_code, str(error))
            return
        self.serve(connection)

    def _overdue(self, connection):
        if connection.splitter.half and not connection.closing and not connection.outbox:
            self._refuse(connection, WIRE_INVALID_REQUEST, 'the rest of the request did not come in time')
            return
        if connection.outbox:
            log.warning('{} does not read its replies'.format(connection.describe()))
        self.drop(connection)

    def _refuse(self, connection, code, sentence):
        """Say what is wrong with the stream, which cannot be followed any further, and close it."""
        log.warning('refused {}: {}'.format(connection.describe(), sentence))
        connection.closing = True
        connection.deadline = time.monotonic() + SWEEP
        self.reply(connection, wire.error(None, code, sentence))
