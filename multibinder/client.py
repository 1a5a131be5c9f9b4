"""The public Python API: sockets out of the binder.

Responsible for one connection to the binder and the requests on it, and for every descriptor that a
reply brings until it is handed to the caller. It keeps no state beyond the connection: who wants to
outlive the binder asks again (`Client.adopt`).

A held socket is shared: another holder may have set O_NONBLOCK on it, and another process may take the
connection that a poll told of. Take one with select or poll first and expect BlockingIOError.
"""

import os
import re
import select
import socket

from multibinder import wire
from multibinder.defaults import defaults_file, read_defaults
from multibinder.endpoint import Endpoint
from multibinder.errors import BinderAway, EndpointError, ProtocolError, ReplyError, reason_of

DEFAULT_SOCKET = '/run/multibinder.sock'
_HOST_NAME = re.compile(r'[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_-]+)*\.?$')


def socket_path(env=None):
    """Return the path of the binder's control socket (str): MULTIBINDER_SOCK of `env` (a mapping,
    os.environ by default); if unset that of /etc/default/multibinder, where dpkg-reconfigure writes it; else
    '/run/multibinder.sock'. Set and empty means: no binder."""
    path = (os.environ if env is None else env).get('MULTIBINDER_SOCK')
    return path if path is not None else read_defaults(defaults_file()).get('MULTIBINDER_SOCK') or DEFAULT_SOCKET


def bind(address, port, **options):
    """Return a listening TCP socket (socket.socket) that the binder holds, and claim it for good.

    `address` is numeric, '*', or a host name, which is resolved here and whose first address is taken;
    `port` 1 to 65535. Options: `backlog` (connections), `v6only`, `freebind`, `transparent` (bool),
    `interface` (device name). The socket is the caller's, not inheritable, and keeps listening in the
    binder when the caller is gone. Raises EndpointError, BinderAway, ReplyError.
    """
    with Client() as client:
        return client.bind(address, port, **options)


def bind_unix(path, **options):
    """Return a listening UNIX stream socket that the binder holds, and claim it for good.

    `path` is absolute, or '@name' in the abstract namespace. Options: `backlog` (connections), `mode`
    (int or octal text, 0600 if not given), `user`, `group` (names). As `bind` otherwise.
    """
    with Client() as client:
        return client.bind_unix(path, **options)


class Client(object):
    """A connection to the binder, for many requests; also a context manager.

    `path` is the control socket's, `socket_path()` by default; `timeout` the seconds that connecting and
    each reply may take. A lease lasts as long as this connection. `fileno()` gets readable only when the
    binder has gone (it re-executes itself without closing connections).
    """

    def __init__(self, path=None, timeout=10.0):
        self.path = socket_path() if path is None else path
        self._timeout = timeout
        self._sock = None
        self._number = 0
        self._leased = False
        self._connect()

    def fileno(self):
        """Return the connection's descriptor, for select and its kin; it stays this object's."""
        return self._sock.fileno() if self._sock is not None else -1

    @property
    def closed(self):
        """Whether the connection is closed, by us or after an error."""
        return self._sock is None

    def close(self):
        """Close the connection; every lease of it ends, and lingering begins."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def bind(self, address, port, lease=False, **options):
        """Return a TCP listener's socket.socket; as the function `bind`, with `lease` a claim that lasts
        as long as this connection only."""
        return self.bind_all([_resolved(address, port, options)], lease)[0]

    def bind_unix(self, path, lease=False, **options):
        """Return a UNIX listener's socket.socket; as the function `bind_unix`."""
        return self.bind_all([Endpoint.unix(path, **options)], lease)[0]

    def bind_all(self, endpoints, lease=False):
        """Claim many endpoints (list of Endpoint): for good, or with `lease` true for as long as this
        connection lasts, or with lease='process' for as long as this process lives. Returns their sockets (list of socket.socket, the
        caller's, close-on-exec) in the same order: all of them, or it raises BinderAway, ReplyError or
        ProtocolError and every received descriptor is closed."""
        sockets = []
        try:
            for batch in _batches(endpoints):
                self._leased = self._leased or lease
                _, fds = self._ask('bind', _params(batch, lease), expected=len(batch))
                for endpoint, fd in zip(batch, fds):
                    sockets.append(socket.socket(endpoint.family(), socket.SOCK_STREAM, 0, fd))
        except BaseException:
            for sock in sockets:
                sock.close()
            raise
        return sockets

    def release(self, endpoints, lease=True):
        """Give up claims on endpoints (list of Endpoint) at once, without linger: this connection's
        leases, or with `lease` false the claims for good. A listener that nobody else claims closes.
        Returns a list of str in the same order: 'closed', 'claimed' (by somebody else, who keeps it), or
        'unknown'."""
        outcomes = []
        for batch in _batches(endpoints):
            outcomes.extend(self._ask('release', _params(batch, lease))[0])
        return outcomes

    def adopt(self, listeners, lease=True):
        """Offer the binder listeners that this process has: a list of (Endpoint, fileno), the descriptors
        stay the caller's. Returns a list of str in the same order: 'adopted' (it holds it from now on),
        'held' (it holds this very socket already), 'other' (it holds another one for that endpoint, and
        nothing was claimed). With `lease` the claim lasts as long as this connection."""
        outcomes = []
        for batch in _batches(listeners):
            self._leased = self._leased or lease
            result, _ = self._ask('adopt', _params([endpoint for endpoint, _ in batch], lease),
                                  [fd for _, fd in batch])
            outcomes.extend(result)
        return outcomes

    def call(self, method, params=()):
        """Ask anything that brings no descriptors and return the result (decoded JSON). Raises
        ReplyError, BinderAway, ProtocolError."""
        return self._ask(method, list(params))[0]

    def _connect(self):
        if not self.path:
            raise BinderAway('cannot reach a binder: MULTIBINDER_SOCK is set to the empty string')
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.settimeout(self._timeout)
        try:
            self._sock.connect(self.path)
        except OSError as error:
            self.close()
            reason = 'it did not answer in {:g} s'.format(self._timeout) if isinstance(
                error, (socket.timeout, BlockingIOError)) else reason_of(error)
            raise BinderAway('cannot reach the binder on {}: {}'.format(self.path, reason)) from None

    def _ask(self, method, params, fds=(), expected=0):
        if self._sock is None:
            self._connect()
        elif not self._leased and _ended(self._sock):
            self.close()        # the binder ends connections that were idle for long
            self._connect()
        self._number += 1
        try:
            self._send(wire.request(method, params, self._number), fds)
            reply, received = self._receive()
        except (OSError, ProtocolError) as error:
            self.close()
            if isinstance(error, ProtocolError):
                raise
            reason = 'no answer in {:g} s'.format(self._timeout) if isinstance(
                error, socket.timeout) else reason_of(error)
            raise BinderAway('the binder on {} did not answer {}: {}'.format(self.path, method, reason)) from None
        failed = reply.get('error')
        if failed is None and len(received) != expected:
            wire.close_all(received)
            self.close()
            raise ProtocolError('the binder sent {} descriptors where {} were due'.format(len(received), expected))
        if failed is not None:
            wire.close_all(received)
            if not isinstance(failed, dict):
                failed = {}
            raise ReplyError(failed.get('code', 0), str(failed.get('message', 'the binder gave no reason')))
        return reply.get('result'), received

    def _send(self, data, fds):
        sent = wire.send(self._sock, data, fds)
        if sent < len(data):
            self._sock.sendall(data[sent:])

    def _receive(self):
        splitter = wire.Splitter(wire.MAX_REPLY)
        received = []
        try:
            while True:
                data, fds = wire.receive(self._sock)
                received.extend(fds)
                if not data:
                    raise ConnectionResetError(0, 'it closed the connection')
                messages = splitter.feed(data)
                if splitter.broken is not None:
                    raise splitter.broken
                for message in messages:
                    if not isinstance(message, dict) or message.get('id') not in (self._number, None):
                        raise ProtocolError('the binder sent no reply to our request')
                    return message, received
        except BaseException:
            wire.close_all(received)
            raise


def _batches(items):
    return [items[start:start + wire.MAX_FDS] for start in range(0, len(items), wire.MAX_FDS)]


def _params(endpoints, lease):
    params = []
    for endpoint in endpoints:
        one = endpoint.to_params()
        if lease:
            one['lease'] = lease
        params.append(one)
    return params


def _ended(sock):
    """Tell whether the peer closed an idle connection: then, and only then, it is readable."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _resolved(address, port, options):
    """Return the TCP endpoint, a host name resolved here: the binder must not wait for a name server."""
    try:
        return Endpoint.tcp(address, port, **options)
    except EndpointError:
        if not isinstance(address, str) or not _HOST_NAME.match(address) or address.replace('.', '').isdigit():
            raise
    Endpoint.tcp('0.0.0.0', port, **options)    # what else is wrong is said before a name is asked for
    try:
        found = socket.getaddrinfo(address, None, 0, socket.SOCK_STREAM)
    except OSError as error:
        raise EndpointError('cannot resolve {!r}: {}'.format(address, reason_of(error))) from None
    return Endpoint.tcp(found[0][4][0], port, **options)
