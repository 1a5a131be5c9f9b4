"""The listeners that the binder holds, who claims each, and how long an unclaimed one lingers.

Responsible for the decisions alone: no clock is read here (moments are passed in, seconds of
time.monotonic), no message is sent, and the only I/O is the closing of a listener. A holder is whatever
object stands for a connection; it is only compared.
"""

import os

from multibinder.listening import close_listener


class Listener(object):
    """A listening socket that the binder holds. `sock` is owned by it until `close`.

    `leases` are the holders whose claim lasts as long as their connection; `plain` is the PID of who
    claimed it for good (int), or None; `idle_since` the moment since which nobody claims it, or None.
    """

    __slots__ = ('endpoint', 'sock', 'plain', 'leases', 'idle_since', 'created', 'heals', 'handed_out')

    def __init__(self, endpoint, sock, created):
        self.endpoint = endpoint
        self.sock = sock
        self.plain = None
        self.leases = ()        # a tuple: nearly always none or one, and there may be thousands of us
        self.idle_since = created
        self.created = created
        self.heals = 0
        self.handed_out = 0

    @property
    def claimed(self):
        return self.plain is not None or bool(self.leases)

    def socket_id(self):
        """Return what tells this socket from all others: (device, inode) of its descriptor."""
        return socket_id(self.sock.fileno())


def socket_id(fileno):
    """Return (device, inode) of the socket behind a descriptor, the same for every copy of it."""
    found = os.fstat(fileno)
    return found.st_dev, found.st_ino


class Inventory(object):
    """All listeners by endpoint, and the only way to change who claims what.

    `linger` is the number of seconds (float, 0 and more) for which an unclaimed listener is kept.
    """

    def __init__(self, linger):
        self.linger = linger
        self._listeners = {}
        self._held_by = {}      # holder -> set of Listener
        self._idle = {}         # Listener -> idle_since

    def __len__(self):
        return len(self._listeners)

    def __iter__(self):
        return iter(list(self._listeners.values()))

    def find(self, endpoint):
        """Return the Listener of an endpoint, or None."""
        return self._listeners.get(endpoint.name)

    def add(self, endpoint, sock, now):
        """Take over a listening socket; nobody claims it yet. Returns its Listener."""
        assert endpoint.name not in self._listeners, endpoint
        listener = Listener(endpoint, sock, now)
        self._listeners[endpoint.name] = listener
        self._idle[listener] = now
        return listener

    def lease(self, listener, holder):
        """Claim for as long as `holder` is connected. Returns whether that is new."""
        if holder in listener.leases:
            return False
        listener.leases += (holder,)
        self._held_by.setdefault(holder, set()).add(listener)
        self._busy(listener)
        return True

    def claim(self, listener, pid):
        """Claim for good, in the name of `pid`. Returns whether that is new."""
        new = listener.plain is None
        listener.plain = pid
        if new:
            self._busy(listener)
        return new

    def end_lease(self, listener, holder, now):
        """End one holder's lease. Returns whether there was one."""
        if holder not in listener.leases:
            return False
        listener.leases = tuple(one for one in listener.leases if one is not holder)
        held = self._held_by[holder]
        held.discard(listener)
        if not held:
            del self._held_by[holder]
        self._maybe_idle(listener, now)
        return True

    def end_claim(self, listener, now):
        """End the claim for good. Returns whether there was one."""
        if listener.plain is None:
            return False
        listener.plain = None
        self._maybe_idle(listener, now)
        return True

    def holder_gone(self, holder, now):
        """End all leases of a holder. Returns the listeners that it had leased, a list."""
        listeners = list(self._held_by.get(holder, ()))
        for listener in listeners:
            self.end_lease(listener, holder, now)
        return listeners

    def leased_by(self, holder):
        """Return the listeners that a holder leases, a list."""
        return list(self._held_by.get(holder, ()))

    def has_lease(self, holder):
        return holder in self._held_by

    def expired(self, now):
        """Return the listeners whose linger time is over, a list; they are still held."""
        return [listener for listener, since in self._idle.items() if since + self.linger <= now]

    def next_expiry(self):
        """Return the moment at which the next unclaimed listener's linger time is over, or None."""
        return min(self._idle.values()) + self.linger if self._idle else None

    def set_idle_since(self, listener, moment):
        """Let an unclaimed listener linger from an earlier moment on: it was unclaimed before us."""
        if moment is not None and not listener.claimed:
            listener.idle_since = moment
            self._idle[listener] = moment

    def drop(self, listener):
        """Stop holding a listener that nobody claims: see `listening.close_listener`."""
        assert not listener.claimed, listener.endpoint
        del self._listeners[listener.endpoint.name]
        self._idle.pop(listener, None)
        close_listener(listener.endpoint, listener.sock)

    def _busy(self, listener):
        listener.idle_since = None
        self._idle.pop(listener, None)

    def _maybe_idle(self, listener, now):
        if not listener.claimed:
            listener.idle_since = now
            self._idle[listener] = now
