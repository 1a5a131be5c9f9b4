"""An instance's side of the binder: the kept connection, its leases, and a copy of each listener.

Responsible for every descriptor that the binder hands to this instance. The copies serve a binder that
comes up without its listeners (killed where nobody stores its descriptors): it gets them back, so that
the next reload finds them. A copy of a listener that is no longer in use would keep the port open with
nobody to accept: it is closed with the lease.
"""

import time

from multibinder import log, wire
from multibinder.client import Client
from multibinder.errors import BinderAway, Error
from multibinder.haproxy.loop import wait_for

RECONNECT_SECONDS = (0.02, 0.05, 0.1, 0.25, 0.5)    # between attempts; the last one goes on
_TIMER = 'binder'


class Claim(object):
    """Listeners for a generation that is not yet proved: `sockets`, a dict of Endpoint to socket.socket, of
    which those that are held already are the same objects, and the connection that the leases are on."""

    def __init__(self, client, sockets):
        self.client = client
        self.sockets = sockets

    def fds(self, endpoints):
        """Return the descriptors (list of int, this claim's) for a list of Endpoint, in order."""
        return [self.sockets[endpoint].fileno() for endpoint in endpoints]


class Listeners(object):
    """What an instance holds of the binder. `held` (dict of Endpoint to socket.socket) is in use by the
    serving generation."""

    def __init__(self, loop, path, timeout, connect=Client):
        """`path` is a SocketPath, `timeout` the seconds that the binder may take to answer."""
        self.held = {}
        self._loop = loop
        self._path = path
        self._timeout = timeout
        self._connect = connect
        self._client = None
        self._client_path = None
        self._others = set()    # held, but the binder has another socket for it
        self._failures = 0

    def claim(self, endpoints):
        """Lease the endpoints (list of Endpoint). A generator that a loop drives; it returns a Claim,
        which has to be committed or abandoned. While no binder answers it is tried again until the
        timeout. Raises BinderAway, ReplyError: then nothing is claimed."""
        path = self._path.now()
        deadline = time.monotonic() + self._timeout
        attempt = 0
        while True:
            client = None
            try:
                client, others = self._connected(path)
                return Claim(client, self._sockets(client, others, endpoints))
            except BinderAway as error:
                self._gave_up(client)
                if time.monotonic() >= deadline:
                    raise BinderAway('{}; given up after {:g} s'.format(error, self._timeout))
            except BaseException:
                # One request is refused as a whole; of several, some may have been granted.
                self._forget_others(client, endpoints if len(endpoints) > wire.MAX_FDS else ())
                raise
            delay = RECONNECT_SECONDS[min(attempt, len(RECONNECT_SECONDS) - 1)]
            attempt += 1
            yield from wait_for(lambda: False, min(delay, max(0.0, deadline - time.monotonic())))

    def commit(self, claim):
        """The claimed listeners are in use from here on, and no others: leases and copies of those that
        dropped out are given up at once, without linger."""
        dropped = [endpoint for endpoint in self.held if endpoint not in claim.sockets]
        former = self.held
        self.held = claim.sockets
        self._close_all_but(former, self.held)
        self._others = set()
        if claim.client.closed:
            self._adopt_now()           # it was lost in between, and what was claimed on it with it
        elif claim.client is not self._client:
            self._use(claim.client)     # the binder's path has changed; the old connection's leases end
        if dropped and self._client is not None:
            self._release(self._client, dropped)

    def abandon(self, claim):
        """The claimed listeners are not used: give up what the serving generation does not use."""
        self._close_all_but(claim.sockets, self.held)
        if self.held:
            self._forget_others(claim.client, claim.sockets)
        # A start that failed gives nothing up: it may be a restart, and what the instance had before lingers
        # until somebody has mended the config.

    def close(self):
        """Give up everything. The leases end with the connection, and lingering begins."""
        self._loop.at(_TIMER, None, None)
        self._use(None)
        for sock in self.held.values():
            sock.close()
        self.held = {}

    def _connected(self, path):
        """Return (client, others): a connection to the binder at `path` with a lease on all that is held,
        but for `others` (set of Endpoint), for which it has another socket."""
        if self._client is not None and self._client_path == path:
            return self._client, self._others
        client = self._connect(path, self._timeout)
        try:
            others = self._adopt(client)
        except BaseException:
            client.close()
            raise
        if self._client is None:
            self._use(client)
            self._others = others
            self._loop.at(_TIMER, None, None)
        return client, others

    def _sockets(self, client, others, endpoints):
        """Claim what is not held as asked; what is held has its lease on this connection."""
        # The same endpoint twice is one listener under two numbers; other options are the binder's to judge.
        wanted = list({(endpoint.name, str(sorted(endpoint.options.items()))) if endpoint.options else endpoint.name:
                       endpoint for endpoint in endpoints}.values())
        held = {endpoint: endpoint for endpoint in self.held}
        asked = []
        sockets = {}
        for endpoint in wanted:
            former = held.get(endpoint)
            if former is not None and endpoint not in others and former.options == endpoint.options:
                sockets[former] = self.held[former]
            else:
                asked.append(endpoint)
        # One at least, if only to see that the binder is there: a reload without it would leave an
        # instance that the next restart loses.
        asked = asked or wanted[:1]
        for endpoint, sock in zip(asked, client.bind_all(asked, lease=True) if asked else []):
            if endpoint in sockets:
                sock.close()
            else:
                sockets[endpoint] = sock
        return sockets

    @staticmethod
    def _close_all_but(sockets, kept):
        for endpoint, sock in sockets.items():
            if kept.get(endpoint) is not sock:
                sock.close()

    def _adopt(self, client):
        """Offer the binder a copy of all that is held, and lease it there. Return the endpoints (set) for
        which it has another socket."""
        offered = list(self.held.items())
        if not offered:
            return set()
        outcomes = client.adopt([(endpoint, sock.fileno()) for endpoint, sock in offered], lease=True)
        others = set()
        for (endpoint, _), outcome in zip(offered, outcomes):
            if outcome == 'adopted':
                log.info('gave {} back to the binder, which came up without it'.format(endpoint))
            elif outcome == 'other':
                log.warning('the binder holds another socket for {}: the next reload moves to it'.format(endpoint))
                others.add(endpoint)
        return others

    def _use(self, client):
        """Make `client` (a Client or None) the kept connection."""
        if self._client is not None:
            self._loop.forget(self._client)
            self._client.close()
        self._client = client
        if client is not None:
            self._client_path = client.path
            self._failures = 0
            self._loop.watch(client, self._gone)

    def _gave_up(self, client):
        """The binder did not answer on this connection."""
        if client is None:
            return
        if client is self._client:
            self._lost()
        else:
            client.close()

    def _gone(self):
        """The connection is readable, and nobody has asked anything: the binder is gone."""
        log.warning('the binder on {} has gone; its listeners serve on, connecting again'.format(self._client_path))
        self._lost()

    def _lost(self):
        client, self._client = self._client, None
        self._loop.forget(client)
        client.close()
        self._failures = 0
        self._loop.at(_TIMER, time.monotonic() + RECONNECT_SECONDS[0], self._reconnect)

    def _adopt_now(self):
        """Offer all that is held on the connection that there is; without one, the next one does it."""
        if self._client is None:
            return
        try:
            self._others = self._adopt(self._client)
        except Error as error:
            log.warning('the binder does not take its listeners: {}'.format(error))
            self._lost()

    def _reconnect(self):
        """Give the binder back what it may have lost, as soon as it answers."""
        started = time.monotonic()
        try:
            self._connected(self._path.now())
            log.info('connected to the binder on {} again'.format(self._client_path))
            return
        except BinderAway:
            pass
        except Error as error:
            log.warning('the binder does not take back its listeners: {}'.format(error))
        self._failures += 1
        now = time.monotonic()
        # A binder that hangs must not keep us from everything else: at most half of the time is spent on it.
        delay = max(RECONNECT_SECONDS[min(self._failures, len(RECONNECT_SECONDS) - 1)], now - started)
        self._loop.at(_TIMER, now + delay, self._reconnect)

    def _forget_others(self, client, endpoints):
        """End what a claim that came to nothing has changed."""
        if client is None:
            return
        if client is not self._client:
            client.close()
            return
        unused = list({endpoint: None for endpoint in endpoints if endpoint not in self.held})
        if unused:
            self._release(client, unused)

    def _release(self, client, endpoints):
        try:
            client.release(endpoints, lease=True)
        except BinderAway:
            if client is self._client:
                self._lost()        # the leases ended with the connection
        except Error as error:
            log.warning('cannot release {}: {}'.format(', '.join(str(endpoint) for endpoint in endpoints), error))
