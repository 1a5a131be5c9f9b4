"""What the binder does for each request: the methods of the protocol.

Responsible for checking a request and for turning it into decisions of the inventory. Every check comes
before the first change, in this order: length and number of descriptors, then what is named, then room,
then what exists; a refused request has changed nothing. It does no reading and no writing of the control
socket.
"""

import os
import socket
import time

from multibinder import __version__, handover, log, peer, wire
from multibinder.endpoint import Endpoint
from multibinder.errors import (
    WIRE_INVALID_PARAMS, WIRE_INVALID_REQUEST, WIRE_METHOD_NOT_FOUND, BindError, EndpointError, Error,
    ProtocolError, reason_of)
from multibinder.inventory import socket_id
from multibinder.listening import drops_of, is_listening, listen, open_listener, queue_of
from multibinder.processes import Process

SPARE_DESCRIPTORS = 32      # kept free for connections and for the work itself
_KNOWN_MAX = 1024           # endpoints whose parsing is remembered

PROCESS = 'process'         # as `lease`: a claim that lasts as long as the process that asks for it

LATER = object()            # the reply is given later, by whoever took the request over


class Methods(object):
    """The methods over one Inventory. `nofile` is the number of descriptors that this process may have,
    `processes` finds those that hold claims, `watch` and `unwatch` are told each listener that comes and
    goes, `reexec` each request to re-execute."""

    def __init__(self, inventory, store, nofile, processes, watch, unwatch, reexec):
        self.inventory = inventory
        self.processes = processes
        self.store = store
        self.nofile = nofile
        self.connections = 0
        self.counters = {'hand_outs': 0, 'refusals': 0, 'heals': 0, 'reexecs': 0, 'adopted': 0, 'expired': 0}
        self.started = time.time()
        self._watch = watch
        self._unwatch = unwatch
        self._reexec = reexec
        self._known = {}
        self._methods = {
            'bind': self._bind,
            'release': self._release,
            'adopt': self._adopt,
            'list': self._list,
            'status': self._status,
            'reexec': self._reexecute,
        }

    def handle(self, connection, message):
        """Answer one message (decoded JSON). Returns (bytes of the reply, descriptors to go with it,
        borrowed), or LATER."""
        number = message.get('id') if type(message) is dict else None
        try:
            if type(message) is not dict:
                raise ProtocolError('a request is one JSON object; batches are not supported')
            method = message.get('method')
            params = message.get('params', ())
            call = self._methods.get(method) if type(method) is str else None
            if call is None:
                if type(method) is not str:
                    raise ProtocolError('a request needs a method, a string', WIRE_INVALID_REQUEST)
                raise ProtocolError('Method not found: {!a}'.format(method[:40]), WIRE_METHOD_NOT_FOUND)
            if type(params) is not list and params != ():
                raise ProtocolError('params is a list, with an object for each endpoint', WIRE_INVALID_PARAMS)
            outcome = call(connection, params, number)
            if outcome is LATER:
                return LATER
            value, fds = outcome
            return wire.result(number, value), fds
        except Error as error:
            self.counters['refusals'] += 1
            log.warning('refused {}: {}'.format(connection.describe(), error))
            return wire.error(number, error.wire_code, str(error), _reply_limit(message)), ()

    # bind

    def _bind(self, connection, params, number):
        asked = self._endpoints(params)
        if any(lease == PROCESS for _, lease in asked):
            self._holder(connection, PROCESS)       # it is there, or nothing is opened
        now = time.monotonic()
        listeners = []
        opened = []
        try:
            for endpoint, _ in asked:
                listener = self.inventory.find(endpoint)
                if listener is None:
                    listener = self._open(endpoint, now)
                    opened.append(listener)
                elif endpoint.options:
                    listener = self._reconcile(listener, endpoint, opened, now)
                listeners.append(listener)
        except Error:
            for listener in opened:
                self.inventory.drop(listener)
            raise
        for listener in opened:
            self._watch(listener)
        fds = []
        new = set(opened)
        for listener in listeners:
            if listener not in new and not is_listening(listener.sock):
                self.heal(listener)
            listener.handed_out += 1
            fds.append(listener.sock.fileno())
        self._claim(connection, zip(listeners, (lease for _, lease in asked)))
        self.counters['hand_outs'] += len(fds)
        return True, fds

    def _endpoints(self, params):
        """Return [(Endpoint, whether it is a lease)] of a request's params."""
        if not 1 <= len(params) <= wire.MAX_FDS:
            raise ProtocolError('a request names 1 to {} endpoints, this one {}'.format(
                wire.MAX_FDS, len(params)), WIRE_INVALID_PARAMS)
        return [self._endpoint(one) for one in params]

    def _endpoint(self, one):
        try:
            key = tuple(one.items())
            known = self._known.get(key)
        except (TypeError, AttributeError):
            key = known = None      # a value that is no plain one; it is refused below
        if known is None:
            if type(one) is not dict:
                raise EndpointError('an endpoint is an object, not {!a}'.format(one))
            rest = dict(one)
            lease = rest.pop('lease', False)
            if type(lease) is not bool and lease != PROCESS:
                raise EndpointError('lease is true, false or "process", not {!a}'.format(lease))
            known = (Endpoint.from_params(rest), lease)
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            # What compares equal is not the same to JSON (1, 1.0 and true), so only these are remembered.
            for value in one.values():
                if value is not True and type(value) is not str and type(value) is not int:
                    break
            else:
                self._known[key] = known
        return known

    def _open(self, endpoint, now):
        self._need_room(1)
        return self.inventory.add(endpoint, open_listener(endpoint), now)

    def _need_room(self, count):
        used = len(self.inventory) + self.connections + count
        if used + SPARE_DESCRIPTORS > self.nofile:
            raise BindError('cannot hold {} more: {} listeners and {} connections are all that {} descriptors '
                            'allow (LimitNOFILE)'.format(count, len(self.inventory), self.connections, self.nofile))

    def _reconcile(self, listener, endpoint, opened, now):
        """Return a listener that is as `endpoint` asks: the one held, or a new one if nobody claims it (it
        lingered only, and is gone then even if a later endpoint of the same request is refused)."""
        differences = listener.endpoint.differences(endpoint)
        if differences and (listener.claimed or listener in opened):
            raise BindError('cannot bind {} as asked: it is held, and there {}'.format(endpoint, '; '.join(differences)))
        if differences:
            self.close(listener)
            listener = self._open(endpoint, now)
            opened.append(listener)
            return listener
        backlog = endpoint.options.get('backlog')
        held = listener.endpoint.options.get('backlog')
        if backlog and held and backlog > held:
            # It only grows while it is held: others who share the listener asked for theirs.
            try:
                listener.sock.listen(backlog)
                listener.endpoint = listener.endpoint.with_options(backlog=backlog)
            except OSError as error:
                raise BindError('cannot raise the backlog of {}: {}'.format(endpoint, reason_of(error))) from None
        return listener

    def _claim(self, connection, listeners):
        """Claim each of `listeners`, pairs of (Listener, whether it is a lease)."""
        leased, claimed = [], []
        for listener, lease in listeners:
            if lease:
                if self.inventory.lease(listener, self._holder(connection, lease)):
                    leased.append(listener)
            elif self.inventory.claim(listener, connection.pid):
                claimed.append(listener)
        for new, word in ((leased, 'leased'), (claimed, 'claimed')):
            if new:
                log.info('{} {} by {}'.format(_names(new), word, connection.describe()))
                for listener in new:
                    self.store.keep(listener)

    def _holder(self, connection, lease):
        """Return who holds a lease: the connection, or the process at its other end."""
        if lease != PROCESS:
            return connection
        process = self.processes.find(connection.pid)
        if process is None:
            raise BindError('cannot claim for pid {}: there is no such process'.format(connection.pid))
        return process

    # release

    def _release(self, connection, params, number):
        outcomes = []
        closed = []
        now = time.monotonic()
        for endpoint, lease in self._endpoints(params):
            listener = self.inventory.find(endpoint)
            if listener is None:
                outcomes.append('unknown')
                continue
            if lease:
                self._end_lease(listener, self._holder(connection, lease), now)
            else:
                self.inventory.end_claim(listener, now)
            if listener.claimed:
                self.store.keep(listener)
                outcomes.append('claimed')
                continue
            closed.append(listener)
            self.close(listener)
            outcomes.append('closed')
        if closed:
            log.info('{} released by {}'.format(_names(closed), connection.describe()))
        return outcomes, ()

    def _end_lease(self, listener, holder, now):
        self.inventory.end_lease(listener, holder, now)
        if isinstance(holder, Process) and not self.inventory.has_lease(holder):
            self.processes.release(holder)

    # adopt

    def _adopt(self, connection, params, number):
        fds = connection.take(len(params))
        outcomes = []
        try:
            if len(fds) != len(params):
                raise ProtocolError('adopt names {} endpoints and came with {} descriptors'.format(
                    len(params), len(fds)), WIRE_INVALID_PARAMS)
            asked = self._endpoints(params)
            for (endpoint, _), fd in zip(asked, fds):
                handover.adoptable(fd, endpoint)
            self._need_room(sum(1 for endpoint, _ in asked if self.inventory.find(endpoint) is None))
            now = time.monotonic()
            wanted = []
            for index, (endpoint, lease) in enumerate(asked):
                listener = self.inventory.find(endpoint)
                if listener is None:
                    listener = self.adopt_socket(fds[index], endpoint, now)
                    fds[index] = -1
                    outcomes.append('adopted')
                elif listener.socket_id() == socket_id(fds[index]):
                    outcomes.append('held')
                else:
                    log.warning('{} has another socket for {} than the one that is held'.format(
                        connection.describe(), endpoint))
                    outcomes.append('other')
                    continue
                wanted.append((listener, lease))
            self._claim(connection, wanted)
            return outcomes, ()
        finally:
            wire.close_all(fd for fd in fds if fd >= 0)

    def adopt_socket(self, fd, endpoint, now):
        """Hold a listening socket that came as a descriptor (owned from here on). Returns its Listener."""
        sock = socket.socket(endpoint.family(), socket.SOCK_STREAM, 0, fd)
        sock.set_inheritable(False)
        listener = self.inventory.add(endpoint, sock, now)
        self._watch(listener)
        self.counters['adopted'] += 1
        if not is_listening(sock):
            self.heal(listener)
        return listener

    # looking

    def _list(self, connection, params, number):
        now = time.monotonic()
        units = {}
        return [self._describe(listener, now, units) for listener in self.inventory], ()

    def _describe(self, listener, now, units):
        waiting, limit = queue_of(listener.sock)
        claims = [(PROCESS if isinstance(holder, Process) else 'lease', holder.pid) for holder in listener.leases]
        if listener.plain is not None:
            claims.append(('plain', listener.plain))
        for _, pid in claims:
            if pid not in units:
                units[pid] = peer.unit_of(pid)
        claims = [{'kind': kind, 'pid': pid, 'unit': units[pid]} for kind, pid in claims]
        listening = is_listening(listener.sock)
        return {
            'endpoint': listener.endpoint.name,
            'options': listener.endpoint.options,
            'state': 'claimed' if listener.claimed and listening else 'lingering' if listening else 'not listening',
            'claims': claims,
            'age': round(now - listener.created, 3),
            'idle': None if listener.idle_since is None else round(now - listener.idle_since, 3),
            'queue': waiting,
            'backlog': limit,
            'drops': drops_of(listener.sock),
            'heals': listener.heals,
            'handed_out': listener.handed_out,
            'inode': listener.socket_id()[1],
        }

    def _status(self, connection, params, number):
        return {
            'version': __version__,
            'pid': os.getpid(),
            'started': self.started,
            'listeners': len(self.inventory),
            'claimed': sum(1 for listener in self.inventory if listener.claimed),
            'connections': self.connections,
            'descriptors': self.nofile,
            'linger': self.inventory.linger,
            'store': self.store.active,
            'counters': self.counters,
        }, ()

    def _reexecute(self, connection, params, number):
        self._reexec(connection, number)
        return LATER

    # what befalls listeners

    def heal(self, listener):
        """Bring a listener that somebody shut down back into LISTEN. Returns whether it is."""
        try:
            listen(listener.endpoint, listener.sock)
        except OSError as error:
            log.error('{} is out of LISTEN and cannot be brought back: {}'.format(listener.endpoint, reason_of(error)))
            return False
        listener.heals += 1
        self.counters['heals'] += 1
        log.warning('{} was out of LISTEN (somebody shut the shared socket down) and listens again'.format(
            listener.endpoint))
        self.store.keep(listener, force=True)   # a manager without FDPOLL=0 has dropped its copy
        return True

    def holder_gone(self, holder):
        """End the leases of a connection that closed, or of a process that ended."""
        if not self.inventory.has_lease(holder):
            return
        listeners = self.inventory.holder_gone(holder, time.monotonic())
        for listener in listeners:
            self.store.keep(listener)
        idle = [listener for listener in listeners if not listener.claimed]
        if idle:
            log.info('{} went away; kept for {:g} s without a claim: {}'.format(
                peer.describe(holder.pid), self.inventory.linger, _names(idle)))

    def expire(self):
        """Close the listeners whose linger time is over."""
        expired = self.inventory.expired(time.monotonic())
        for listener in expired:
            self.counters['expired'] += 1
            self.close(listener)
        if expired:
            log.info('{} closed: nobody claimed it for {:g} s'.format(_names(expired), self.inventory.linger))

    def close(self, listener):
        """Stop holding a listener that nobody claims."""
        self.store.forget(listener)
        self._unwatch(listener)
        self.inventory.drop(listener)


def _reply_limit(message):
    """Return how long the reply to a refused message may be, in bytes, or None: who binds one endpoint
    may be the Go client, which reads no further."""
    if type(message) is dict and message.get('method') == 'bind':
        params = message.get('params')
        if type(params) is list and len(params) == 1:
            return wire.GEM_READ
    return None


def _names(listeners):
    names = sorted(listener.endpoint.name for listener in listeners)
    return ', '.join(names[:5]) + (', and {} more'.format(len(names) - 5) if len(names) > 5 else '')
