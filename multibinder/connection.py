"""One client of the binder: its bytes, its descriptors and its deadline.

Responsible for what has come and not been answered, and for what was answered and has not gone. It knows
no method; which deadline applies follows from what is under way.
"""

import binascii
import collections
import os
import socket
import time

from multibinder import peer, wire

# Seconds. A request of our clients is written at once, so these bound only those that are broken.
FIRST_REQUEST = 10.0
HALF_REQUEST = 10.0
WRITE_STALL = 10.0
IDLE = 300.0            # without a lease; with one a connection may be silent for ever


class Connection(object):
    """A connected client. Owns its socket and the descriptors that came and were not taken."""

    __slots__ = ('sock', 'pid', 'uid', 'splitter', 'arrived', 'todo', 'outbox', 'deadline', 'closing')

    def __init__(self, sock):
        self.sock = sock
        sock.setblocking(False)
        self.pid, self.uid, _ = peer.credentials(sock)
        self.splitter = wire.Splitter()
        self.arrived = []       # descriptors that came and that no request has taken yet
        self.todo = collections.deque()     # requests that wait until the replies before them have gone
        self.outbox = collections.deque()   # [bytes, our own copies of descriptors]
        self.deadline = time.monotonic() + FIRST_REQUEST
        self.closing = False    # to be closed as soon as the outbox is empty

    def describe(self):
        """Return the client in words, for a log line."""
        return peer.describe(self.pid, self.uid)

    def read(self):
        """Read once and queue the requests that are whole now. Returns False at the end of the stream.
        Raises OSError and ProtocolError as `wire.receive` does."""
        data, fds = wire.receive(self.sock)
        if not data:
            return False
        if fds:
            self.arrived.extend(fds)
        pending = self.splitter.half
        self.todo.extend(self.splitter.feed(data))
        if self.splitter.half:
            # The deadline of half a request counts from its first byte: it is not renewed by a trickle.
            if not pending or self.todo:
                self.deadline = time.monotonic() + HALF_REQUEST
        else:
            self.deadline = time.monotonic() + IDLE
        return True

    def take(self, count):
        """Return the next `count` descriptors that came (list of int, the caller's from here on), fewer
        when there are fewer."""
        taken, self.arrived = self.arrived[:count], self.arrived[count:]
        return taken

    def discard(self):
        """Close the descriptors that nobody asked for, once no request can take them any more. Returns
        how many there were."""
        if not self.arrived or self.splitter.half or self.todo:
            return 0
        count = len(self.arrived)
        wire.close_all(self.arrived)
        self.arrived = []
        return count

    def send(self, data, fds=()):
        """Send a reply with descriptors (int, borrowed), now as far as the socket takes it. Returns
        whether all has gone; raises OSError when the client is gone."""
        if not self.outbox:
            try:
                sent = wire.send(self.sock, data, fds)
                if sent == len(data):
                    return True
                data, fds = data[sent:], ()
            except BlockingIOError:
                pass
        # What a later release closes must not be what a late reply hands out: these are copies.
        self.outbox.append([data, [os.dup(fd) for fd in fds]])
        self.deadline = time.monotonic() + WRITE_STALL
        return False

    def flush(self):
        """Send what waits in the outbox. Returns whether it is empty; raises OSError when the client is
        gone."""
        while self.outbox:
            data, fds = self.outbox[0]
            try:
                sent = wire.send(self.sock, data, fds)
            except BlockingIOError:
                return False
            wire.close_all(fds)
            self.deadline = time.monotonic() + WRITE_STALL
            if sent == len(data):
                self.outbox.popleft()
                self.deadline = time.monotonic() + IDLE
            else:
                self.outbox[0] = [data[sent:], []]
        return True

    def close(self):
        """Close the socket and every descriptor that is still ours."""
        wire.close_all(self.arrived)
        self.arrived = []
        for _, fds in self.outbox:
            wire.close_all(fds)
        self.outbox.clear()
        self.sock.close()

    def to_state(self):
        """Return what the next process of a re-exec needs beside the socket, or None when a reply with
        descriptors waits: such a client is not reading, and loses its connection."""
        if self.closing or self.splitter.broken or self.arrived or any(fds for _, fds in self.outbox):
            return None
        return {
            'fd': self.sock.fileno(),
            'half': binascii.hexlify(self.splitter.pending).decode('ascii'),
            'todo': list(self.todo),
            'out': binascii.hexlify(b''.join(data for data, _ in self.outbox)).decode('ascii'),
        }

    @classmethod
    def from_state(cls, state):
        """Return the connection that `to_state` described."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, state['fd'])
        sock.set_inheritable(False)
        connection = cls(sock)
        connection.todo.extend(state['todo'])
        connection.todo.extend(connection.splitter.feed(binascii.unhexlify(state['half'])))
        data = binascii.unhexlify(state['out'])
        if data:
            connection.outbox.append([data, []])
        connection.deadline = time.monotonic() + (HALF_REQUEST if state['half'] else IDLE)
        return connection
