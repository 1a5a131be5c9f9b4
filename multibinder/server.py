"""The event loop of the binder, and its life: start, re-exec in place, stop.

One thread. It decides when something happens; what a request means is for `methods`, who claims what
for `inventory`, how things get past the end of this process for `handover`. Signal handlers only queue.
"""

import collections
import errno
import os
import select
import signal
import time

from multibinder import handover, log, process, sdnotify, wire
from multibinder.connection import Connection
from multibinder.control import FORMER_PATH, Control
from multibinder.endpoint import is_listening
from multibinder.errors import WIRE_INVALID_REQUEST, EndpointError, Error, ProtocolError, reason_of
from multibinder.inventory import Inventory
from multibinder.methods import LATER, SPARE_DESCRIPTORS, Methods

MAX_CLIENTS = 8192
SWEEP = 1.0             # seconds between two looks at the deadlines, while there are any
HEAL_TICK = 30.0        # seconds; epoll tells of a shutdown at once, this is for what it cannot tell
ACCEPT_PAUSE = 1.0      # seconds, when there is no descriptor for another client
CHECK_DEADLINE = 20.0   # seconds for the new code to show that it starts
WIRE_INTERNAL_ERROR = -32603


class Server(object):
    """A binder. `settings` has path, mode (int), group (str or None), linger (s); `command` is what it
    re-executes itself with (list of str) in `environment` (dict)."""

    def __init__(self, settings, command, environment):
        self._settings = settings
        self._command = command
        self._environment = environment
        self._epoll = select.epoll()
        self._handlers = {}         # descriptor -> (what to call, with what beside epoll's events)
        self._connections = {}      # descriptor -> Connection
        self._timed = set()         # connections whose deadline counts
        self._controls = []         # control.Control, ours first; a former path's may follow
        self._checks = collections.OrderedDict()    # who waits for the re-exec: (connection, id) or None
        self._check = None          # handover.Check of the new code, while it runs
        self._accept_at = None      # when accepting goes on, after the descriptors ran out
        self._heal_at = time.monotonic() + HEAL_TICK
        self._next_tick = 0.0
        self._on_shutdown = self._on_listener_shutdown   # one bound method for thousands of listeners
        self._running = True
        self.resumed = False        # whether we took over from a process that re-executed itself
        self._signals = process.SignalPipe(
            (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD))
        self._store = handover.Store()
        nofile = process.raise_nofile()
        self._inventory = Inventory(settings.linger)
        self._methods = Methods(self._inventory, self._store, nofile, self._watch, self._unwatch, self._want_reexec)

    def serve(self):
        """Serve until SIGTERM, SIGINT or SIGHUP, and stop. The server has started."""
        while self._running:
            for fileno, events in self._wait():
                known = self._handlers.get(fileno)
                if known is not None:       # else closed by one that came before it in this round
                    known[0](known[1], events)
            now = time.monotonic()
            if now >= self._next_tick:
                self._tick(now)
        self.stop()

    def descriptors(self):
        """Return what has to stay open in a process that serves on in our place (list of int)."""
        return [self._epoll.fileno()] + self._signals.descriptors() + [
            fileno for fileno in self._handlers if fileno != self._signals.fileno()]

    def start(self):
        """Take over what the process before us left, and open the control socket. Raises Error."""
        self._register(self._signals.fileno(), self._on_signals, self._signals)
        state = handover.read_state()
        self.resumed = state is not None
        if self.resumed:
            self._resume(state)
        for fd, name in sdnotify.listen_fds():
            self._restore(fd, name)
        self._open_control()
        for listener in self._inventory:
            if not is_listening(listener.sock):
                self._methods.heal(listener)
        log.info('Listening for binds on control socket: {}'.format(self._settings.path))
        self._ready()
        if self.resumed:
            self._answer_reexec(None)
            for connection in list(self._connections.values()):
                self._serve(connection)

    def stop(self):
        """Let go of everything. What systemd stores, it keeps for a restart; see systemd.service(5)."""
        log.info('Stopping; {} listeners held'.format(len(self._inventory)))
        sdnotify.notify('STOPPING=1')
        kept = self._store.active and process.restart_is_due()
        if self._store.active:
            # What we sent must have been read while we can still be told apart from a stranger.
            sdnotify.barrier()
        for one in self._controls:
            one.close(unlink=not kept)
        for connection in self._connections.values():
            connection.close()

    def _ready(self):
        sdnotify.notify('READY=1', 'STATUS=Holding {} listeners on {}'.format(
            len(self._inventory), self._settings.path))

    def _open_control(self):
        path = self._settings.path
        ours = next((one for one in self._controls if one.path == path), None)
        if ours is None:
            ours = Control.create(path)
            self._controls.insert(0, ours)
            for former in self._controls[1:]:
                # Clients that know the former path only are served until they could have moved.
                former.until = time.monotonic() + max(FORMER_PATH, self._inventory.linger)
                self._hurry(former.until)
                log.info('the former control socket {} is served for {:g} s more'.format(
                    former.path, former.until - time.monotonic()))
            self._store.forget_control()
            for one in self._controls:
                self._store.keep_control(one.sock)
        ours.permit(self._settings.mode, self._settings.group)
        for one in self._controls:
            self._register(one.sock.fileno(), self._on_accept, one)

    def _restore(self, fd, name):
        """Take a descriptor out of systemd's store."""
        try:
            if name == handover.CONTROL_NAME:
                self._controls.append(Control.inherited(fd))
                self._store.keep_control(self._controls[-1].sock)
                return
            endpoint, plain = handover.identify(fd, name)
            held = self._inventory.find(endpoint)
            if held is not None:
                raise EndpointError('{} is held already'.format(endpoint))
        except EndpointError as error:
            log.warning('a stored descriptor ({}) is of no use: {}'.format(name, error))
            handover.discard_stored(fd, name)
            return
        listener = self._methods.adopt_socket(fd, endpoint, time.monotonic())
        if plain:
            self._inventory.claim(listener, 0)
        self._store.assume(listener, name)
        log.info('{} restored from the fd store'.format(endpoint))

    # re-exec

    def _want_reexec(self, connection, number):
        """Re-execute ourselves, once the code that we would become has shown that it starts."""
        self._checks[(connection, number)] = True
        if self._check is None:
            log.info('Respawning')
            self._check = process.Check(self._command, self._environment, CHECK_DEADLINE)
            self._hurry(self._check.deadline)

    def _after_check(self):
        check, self._check = self._check, None
        reason = check.verdict()
        if reason is None:
            reason = self._reexecute()
        log.error('not re-executed: {}'.format(reason))
        self._ready()
        self._answer_reexec(Error('cannot re-execute the binder: {}'.format(reason)))

    def _reexecute(self):
        """Become the new code. Returns only when that failed, with the reason."""
        connections = []
        waiting = []
        for connection in list(self._connections.values()):
            state = connection.to_state()
            if state is None:
                self._drop(connection)
                continue
            state['leases'] = [one.endpoint.name for one in self._inventory.leased_by(connection)]
            for waiter, number in self._checks:
                if waiter is connection:
                    waiting.append([state['fd'], number])
            connections.append(state)
        listeners = [{
            'fd': one.sock.fileno(), 'params': one.endpoint.to_params(), 'plain': one.plain, 'created': one.created,
            'idle_since': one.idle_since, 'heals': one.heals, 'handed_out': one.handed_out,
        } for one in self._inventory]
        self._methods.counters['reexecs'] += 1
        state = {
            'listeners': listeners, 'connections': connections, 'waiting': waiting,
            'controls': [[one.sock.fileno(), one.path, one.until] for one in self._controls],
            'stored': self._store.names(), 'counters': self._methods.counters, 'started': self._methods.started,
        }
        filenos = [one['fd'] for one in listeners + connections] + [one[0] for one in state['controls']]
        sdnotify.notify('RELOADING=1', 'MONOTONIC_USEC={}'.format(int(time.monotonic() * 1e6)))
        try:
            handover.execute(self._command, self._environment, state, filenos)
        except Error as error:
            self._methods.counters['reexecs'] -= 1
            return str(error)

    def _resume(self, state):
        """Take over what `_reexecute` of the process before us wrote."""
        listeners = {}
        idle = {}
        for one in state['listeners']:
            endpoint = handover.endpoint_of(one['params'], one['fd'])
            listener = self._methods.adopt_socket(one['fd'], endpoint, one['created'])
            listener.heals, listener.handed_out = one['heals'], one['handed_out']
            if one['plain'] is not None:
                self._inventory.claim(listener, one['plain'])
            listeners[endpoint.name] = listener
            idle[listener] = one['idle_since']
            name = state['stored'].get(endpoint.name)
            if name is not None:
                self._store.assume(listener, name)
        for fileno, path, until in state['controls']:
            self._controls.append(Control.inherited(fileno, path, until))
        for one in state['connections']:
            connection = Connection.from_state(one)
            self._add(connection)
            for name in one['leases']:
                if name in listeners:
                    self._inventory.lease(listeners[name], connection)
            self._retime(connection)
        for listener, moment in idle.items():
            self._inventory.set_idle_since(listener, moment)
        for fileno, number in state['waiting']:
            self._checks[(self._connections[fileno], number)] = True
        self._methods.counters.update(state['counters'])
        self._methods.counters['adopted'] = state['counters'].get('adopted', 0)
        self._methods.started = state['started']

    def _answer_reexec(self, error):
        waiting, self._checks = self._checks, collections.OrderedDict()
        for connection, number in waiting:
            if connection is not None and connection.sock.fileno() >= 0:
                self._reply(connection, wire.result(number, True) if error is None else
                            wire.error(number, error.wire_code, str(error)), ())

    # events

    def _wait(self):
        """Wait for events, at most until the next tick. Returns epoll's list."""
        try:
            return self._epoll.poll(max(0.0, self._next_tick - time.monotonic()))
        except InterruptedError:
            return ()

    def _hurry(self, moment=0.0):
        """Have the next tick no later than at `moment`."""
        self._next_tick = min(self._next_tick, moment)

    def _tick(self, now):
        """Do what is due by the clock, and reckon when something will be due next."""
        for connection in [one for one in self._timed if one.deadline <= now]:
            self._overdue(connection)
        self._methods.expire()
        if now >= self._heal_at:
            self._heal_at = now + HEAL_TICK
            for listener in self._inventory:
                if not is_listening(listener.sock):
                    self._methods.heal(listener)
                self._watch(listener)
        if self._accept_at is not None and now >= self._accept_at:
            self._accept_at = None
            for one in self._controls:
                self._register(one.sock.fileno(), self._on_accept, one)
        for one in [one for one in self._controls if one.until is not None and one.until <= now]:
            self._retire_control(one)
        if self._check is not None and now >= self._check.deadline:
            self._check.kill()
        moments = [self._heal_at, self._inventory.next_expiry(), self._accept_at,
                   self._check.deadline if self._check is not None else None,
                   now + SWEEP if self._timed else None] + [one.until for one in self._controls]
        self._next_tick = min(moment for moment in moments if moment is not None)

    def _on_signals(self, signals, events):
        for number in signals.read():
            self._on_signal(number)

    def _on_signal(self, number):
        if number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self._running = False
        elif number == signal.SIGUSR1:
            self._want_reexec(None, None)
        elif self._check is not None and self._check.reap():
            self._after_check()

    def _on_accept(self, one, events):
        try:
            sock, _ = one.sock.accept()
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                log.error('cannot accept another client: {}'.format(reason_of(error)))
                self._accept_at = time.monotonic() + ACCEPT_PAUSE
                self._hurry(self._accept_at)
                for each in self._controls:
                    self._unregister(each.sock.fileno())
            return
        room = min(MAX_CLIENTS, self._methods.nofile - SPARE_DESCRIPTORS // 2 - len(self._inventory))
        if len(self._connections) >= room:
            self._make_room()
        self._add(Connection(sock))

    def _make_room(self):
        """Close the client without a lease whose deadline is nearest: the one that is silent for longest
        must not keep the others out."""
        if self._timed:
            connection = min(self._timed, key=lambda one: one.deadline)
            log.warning('too many clients: closed that of {}'.format(connection.describe()))
            self._drop(connection)

    def _on_client(self, connection, events):
        try:
            if events & select.EPOLLOUT and connection.flush():
                self._epoll.modify(connection.sock.fileno(), select.EPOLLIN)
                if connection.closing:
                    self._drop(connection)
                    return
            if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR) and not connection.outbox:
                if not connection.read():
                    self._drop(connection)
                    return
        except BlockingIOError:
            return
        except OSError:
            self._drop(connection)
            return
        except ProtocolError as error:
            log.warning('refused {}: {}'.format(connection.describe(), error))
            connection.closing = True
            self._reply(connection, wire.error(None, error.wire_code, str(error)), ())
            return
        self._serve(connection)

    def _serve(self, connection):
        """Answer the requests that have come, until one reply has to wait for the client to read."""
        while connection.todo and not connection.outbox:
            message = connection.todo.popleft()
            try:
                outcome = self._methods.handle(connection, message)
            except Exception as error:      # a fault of ours must not end the service of all others
                log.error('internal error on a request of {}: {!r}'.format(connection.describe(), error))
                outcome = wire.error(None, WIRE_INTERNAL_ERROR, 'internal error, see the log of the binder'), ()
            if outcome is not LATER and not self._reply(connection, *outcome):
                return
        if connection.arrived:
            count = connection.discard()
            if count:
                log.warning('{} sent {} descriptors that nobody asked for; closed'.format(connection.describe(), count))
            elif len(connection.arrived) > 2 * wire.MAX_FDS:
                log.warning('{} sent too many descriptors'.format(connection.describe()))
                self._drop(connection)
                return
        self._retime(connection)

    def _reply(self, connection, data, fds):
        """Send a reply. Returns False when the connection is closed by now."""
        try:
            if connection.send(data, fds):
                if connection.closing:
                    self._drop(connection)
                    return False
                return True
            # Nothing more is read of a client before it has read what it asked for.
            self._epoll.modify(connection.sock.fileno(), select.EPOLLOUT)
            self._retime(connection)
            return True
        except OSError as error:
            if error.errno == errno.EMFILE:
                log.error('no descriptor left to keep a reply for {}'.format(connection.describe()))
            self._drop(connection)
            return False

    def _retime(self, connection):
        """Note whether the connection's deadline counts: a lease may be silent for ever."""
        if connection.outbox or connection.splitter.half or not self._inventory.has_lease(connection):
            if connection not in self._timed:
                self._timed.add(connection)
                self._hurry(time.monotonic() + SWEEP)
        else:
            self._timed.discard(connection)

    def _overdue(self, connection):
        if connection.splitter.half and not connection.closing and not connection.outbox:
            log.warning('{} sent half a request and no more'.format(connection.describe()))
            connection.closing = True
            connection.deadline = time.monotonic() + SWEEP
            self._reply(connection, wire.error(None, WIRE_INVALID_REQUEST, 'the rest of the request did not come in time'), ())
            return
        if connection.outbox:
            log.warning('{} does not read its replies'.format(connection.describe()))
        self._drop(connection)

    # descriptors

    def _add(self, connection):
        fileno = connection.sock.fileno()
        self._connections[fileno] = connection
        self._methods.connections = len(self._connections)
        self._timed.add(connection)
        self._hurry(time.monotonic() + SWEEP)
        self._register(fileno, self._on_client, connection,
                       select.EPOLLOUT if connection.outbox else select.EPOLLIN)

    def _drop(self, connection):
        fileno = connection.sock.fileno()
        if self._connections.get(fileno) is not connection:
            return
        self._unregister(fileno)
        del self._connections[fileno]
        self._methods.connections = len(self._connections)
        self._timed.discard(connection)
        if self._inventory.has_lease(connection):
            self._methods.holder_gone(connection)
            self._hurry()
        connection.close()

    def _retire_control(self, one):
        log.info('the former control socket {} is closed'.format(one.path))
        self._unregister(one.sock.fileno())
        self._controls.remove(one)
        one.close(unlink=True)
        self._store.forget_control()
        for kept in self._controls:
            self._store.keep_control(kept.sock)

    def _watch(self, listener):
        """Have epoll tell when a listener is shut down: without any event asked for, EPOLLHUP comes."""
        fileno = listener.sock.fileno()
        if fileno not in self._handlers:
            self._register(fileno, self._on_shutdown, listener, 0)

    def _unwatch(self, listener):
        self._unregister(listener.sock.fileno())

    def _on_listener_shutdown(self, listener, events):
        if listener.endpoint.kind == 'unix':
            # A UNIX socket stays shut, and would be told of for ever.
            log.error('{} was shut down by somebody and takes no connections any more'.format(listener.endpoint))
            self._unwatch(listener)
        elif not is_listening(listener.sock) and not self._methods.heal(listener):
            self._unwatch(listener)     # nothing to be done now; the slow tick looks again

    def _register(self, fileno, handler, argument, events=select.EPOLLIN):
        known = fileno in self._handlers
        self._handlers[fileno] = (handler, argument)
        if not known:
            self._epoll.register(fileno, events)

    def _unregister(self, fileno):
        if self._handlers.pop(fileno, None) is not None:
            self._epoll.unregister(fileno)
