"""The life of the binder: start, serve, re-execute in place, stop.

It decides when something happens and leaves the rest to others: what a request means to `methods`, who
claims what to `inventory`, clients to `clients`, how things get past the end of this process to
`handover`. One thread; signal handlers only queue.
"""

import collections
import signal
import time

from multibinder import handover, log, process, sdnotify, wire
from multibinder.clients import Clients
from multibinder.connection import Connection
from multibinder.control import FORMER_PATH, Control
from multibinder.errors import EndpointError, Error
from multibinder.inventory import Inventory
from multibinder.listening import is_listening
from multibinder.loop import NOTHING, Loop
from multibinder.methods import Methods
from multibinder.processes import Processes

HEAL_TICK = 30.0        # seconds; epoll tells of a shutdown at once, this is for what it cannot tell
CHECK_DEADLINE = 20.0   # seconds for the new code to show that it starts


class Server(object):
    """A binder. `settings` has path, mode (int), group (str or None), linger (s); `command` is what it
    re-executes itself with (list of str) in `environment` (dict)."""

    def __init__(self, settings, command, environment):
        self.resumed = False        # whether we took over from a process that re-executed itself
        self._settings = settings
        self._command = command
        self._environment = environment
        self._running = True
        self._controls = []         # control.Control: ours first, a former path's may follow
        self._waiting = collections.OrderedDict()   # (connection, id) of each request to re-execute
        self._check = None          # process.Check of the new code, while it runs
        self._heal_at = time.monotonic() + HEAL_TICK
        self._loop = Loop()
        self._store = handover.Store()
        self._inventory = Inventory(settings.linger)
        self._processes = Processes(self._loop, self._process_gone)
        self._methods = Methods(self._inventory, self._store, process.raise_nofile(), self._processes,
                                self._watch, self._unwatch, self._want_reexec)
        self._clients = Clients(self._loop, self._methods)
        self._signals = process.SignalPipe(
            (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD))
        self._on_shutdown = self._on_listener_shutdown     # one bound method for thousands of listeners

    def start(self):
        """Take over what the process before us left, and open the control socket. Raises Error."""
        self._loop.register(self._signals.fileno(), self._on_signals, self._signals)
        state = handover.read_state()
        self.resumed = state is not None
        if self.resumed:
            self._resume(state)
        for fd, name in sdnotify.listen_fds():
            self._restore(fd, name)
        if len(self._inventory) and not self.resumed:
            log.info('{} listeners restored from the fd store'.format(len(self._inventory)))
        self._open_control()
        self._heal()
        log.info('Listening for binds on control socket: {}'.format(self._settings.path))
        self._tell_ready()
        if self.resumed:
            self._answer_reexec(None)
            for connection in self._clients:
                self._clients.serve(connection)

    def serve(self):
        """Serve until SIGTERM, SIGINT or SIGHUP, and stop. The server has started."""
        while self._running:
            self._loop.turn(self._tick)
        self.stop()

    def stop(self):
        """Let go of everything. What systemd stores, it keeps for a restart; see systemd.service(5)."""
        log.info('Stopping; {} listeners held'.format(len(self._inventory)))
        sdnotify.notify('STOPPING=1')
        kept = False
        if self._store.active:
            kept, doubt = process.restart_is_due()
            if doubt is not None:
                log.info('the control socket stays: whether we are started again is not known ({})'.format(doubt))
            # What we sent must have been read while we can still be told apart from a stranger.
            sdnotify.barrier()
        for one in self._controls:
            one.close(unlink=not kept)
        for connection in self._clients:
            connection.close()

    def descriptors(self):
        """Return what has to stay open in a process that serves on in our place (list of int)."""
        return sorted(set(self._loop.descriptors() + self._signals.descriptors()))

    def _tell_ready(self):
        sdnotify.notify('READY=1', 'STATUS=Holding {} listeners on {}'.format(
            len(self._inventory), self._settings.path))

    # the control socket

    def _open_control(self):
        path = self._settings.path
        ours = next((one for one in self._controls if one.path == path), None)
        if ours is not None and not ours.reachable():
            log.warning('the file of the control socket {} is gone; made anew'.format(path))
            self._controls.remove(ours)
            ours.close(unlink=False)
            ours = None
        if ours is None:
            ours = Control.create(path)
            self._controls.insert(0, ours)
            self._store_controls()
        for former in self._controls:
            if former is not ours and former.until is None:
                # Clients that know the former path only are served until they could have moved.
                former.until = time.monotonic() + max(FORMER_PATH, self._inventory.linger)
                log.info('the former control socket {} is served for {:g} s more'.format(
                    former.path, former.until - time.monotonic()))
        ours.permit(self._settings.mode, self._settings.group)
        for one in self._controls:
            self._clients.open_door(one.sock)

    def _store_controls(self):
        self._store.forget_control()
        for one in self._controls:
            self._store.keep_control(one.sock)

    def _retire_control(self, one):
        log.info('the former control socket {} is closed'.format(one.path))
        self._clients.close_door(one.sock)
        self._controls.remove(one)
        one.close(unlink=True)
        self._store_controls()

    # what the process before us left

    def _restore(self, fd, name):
        """Take a descriptor out of systemd's store."""
        try:
            if name == handover.CONTROL_NAME:
                self._controls.append(Control.inherited(fd))
                return
            endpoint, plain, processes = handover.identify(fd, name)
            if self._inventory.find(endpoint) is not None:
                raise EndpointError('{} is held already'.format(endpoint))
        except EndpointError as error:
            log.warning('a stored descriptor ({}) is of no use: {}'.format(name, error))
            handover.discard_stored(fd, name)
            return
        listener = self._methods.adopt_socket(fd, endpoint, time.monotonic())
        if plain:
            self._inventory.claim(listener, 0)
        self._lease_to(listener, processes)
        self._store.assume(listener, name)

    def _lease_to(self, listener, processes):
        """Renew the claims of processes, pairs of (pid, start), as far as they still live."""
        for pid, start in processes:
            found = self._processes.find(pid, start)
            if found is not None:
                self._inventory.lease(listener, found)

    def _process_gone(self, gone):
        self._methods.holder_gone(gone)
        self._loop.hurry()

    def _resume(self, state):
        """Take over what `_reexecute` of the process before us wrote."""
        listeners = {}
        for one in state['listeners']:
            endpoint = handover.endpoint_of(one['params'], one['fd'])
            listener = self._methods.adopt_socket(one['fd'], endpoint, one['created'])
            listener.heals, listener.handed_out = one['heals'], one['handed_out']
            if one['plain'] is not None:
                self._inventory.claim(listener, one['plain'])
            listeners[one['fd']] = listener
            self._lease_to(listener, one.get('processes', ()))
            if one['stored'] is not None:
                self._store.assume(listener, one['stored'])
        for fileno, path, until in state['controls']:
            self._controls.append(Control.inherited(fileno, path, until))
        for one in state['connections']:
            connection = Connection.from_state(one)
            self._clients.add(connection)
            for fileno in one['leases']:
                self._inventory.lease(listeners[fileno], connection)
            self._clients.retime(connection)
        for one in state['listeners']:
            self._inventory.set_idle_since(listeners[one['fd']], one['idle_since'])
        for fileno, number in state['waiting']:
            self._waiting[(self._clients.find(fileno), number)] = True
        self._methods.counters.update(state['counters'])
        self._methods.started = state['started']

    # re-exec

    def _want_reexec(self, connection, number):
        """Re-execute ourselves, once the code that we would become has shown that it starts."""
        self._waiting[(connection, number)] = True
        if self._check is None:
            log.info('Respawning')
            self._check = process.Check(self._command, self._environment, CHECK_DEADLINE)
            self._loop.hurry(self._check.deadline)

    def _after_check(self):
        check, self._check = self._check, None
        reason = check.verdict()
        if reason is None:
            reason = self._reexecute()
        log.error('not re-executed: {}'.format(reason))
        self._tell_ready()
        self._answer_reexec(Error('cannot re-execute the binder: {}'.format(reason)))

    def _reexecute(self):
        """Become the new code. Returns only when that failed, with the reason."""
        connections = []
        for connection in self._clients:
            one = connection.to_state()
            if one is None:
                self._clients.drop(connection)
                continue
            one['leases'] = [listener.sock.fileno() for listener in self._inventory.leased_by(connection)]
            connections.append(one)
        kept = [one['fd'] for one in connections]
        listeners = [{
            'fd': one.sock.fileno(), 'params': one.endpoint.to_params(), 'plain': one.plain, 'created': one.created,
            'idle_since': one.idle_since, 'heals': one.heals, 'handed_out': one.handed_out,
            'stored': self._store.name_of(one), 'processes': handover.processes_of(one),
        } for one in self._inventory]
        self._methods.counters['reexecs'] += 1
        state = {
            'listeners': listeners, 'connections': connections,
            'controls': [[one.sock.fileno(), one.path, one.until] for one in self._controls],
            'waiting': [[connection.sock.fileno(), number] for connection, number in self._waiting
                        if connection is not None and connection.sock.fileno() in kept],
            'counters': self._methods.counters, 'started': self._methods.started,
        }
        sdnotify.notify('RELOADING=1', 'MONOTONIC_USEC={}'.format(int(time.monotonic() * 1e6)))
        try:
            handover.execute(self._command, self._environment, state,
                             kept + [one['fd'] for one in listeners] + [one[0] for one in state['controls']])
        except Error as error:
            self._methods.counters['reexecs'] -= 1
            return str(error)

    def _answer_reexec(self, error):
        waiting, self._waiting = self._waiting, collections.OrderedDict()
        for connection, number in waiting:
            if connection is not None:
                self._clients.reply(connection, wire.result(number, True) if error is None else
                                    wire.error(number, error.wire_code, str(error)))

    # events

    def _tick(self, now):
        """Do what is due by the clock. Returns when something will be due next."""
        self._methods.expire()
        if now >= self._heal_at:
            self._heal_at = now + HEAL_TICK
            self._heal()
        for one in [one for one in self._controls if one.until is not None and one.until <= now]:
            self._retire_control(one)
        if self._check is not None and now >= self._check.deadline:
            self._check.kill()
        moments = [self._heal_at, self._clients.tick(now), self._processes.tick(now), self._inventory.next_expiry()]
        moments += [one.until for one in self._controls]
        if self._check is not None:
            moments.append(self._check.deadline)
        return min(moment for moment in moments if moment is not None)

    def _on_signals(self, signals, events):
        for number in signals.read():
            if number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                self._running = False
            elif number == signal.SIGUSR1:
                self._want_reexec(None, None)
            elif number == signal.SIGCHLD and self._check is not None and self._check.reap():
                self._after_check()

    def _heal(self):
        for listener in self._inventory:
            if not is_listening(listener.sock):
                self._methods.heal(listener)
            self._watch(listener)

    def _watch(self, listener):
        """Have epoll tell when a listener is shut down: without any event asked for, EPOLLHUP comes."""
        self._loop.register(listener.sock.fileno(), self._on_shutdown, listener, NOTHING)

    def _unwatch(self, listener):
        self._loop.unregister(listener.sock.fileno())

    def _on_listener_shutdown(self, listener, events):
        if listener.endpoint.kind == 'unix':
            # A UNIX socket stays shut, and would be told of for ever.
            log.error('{} was shut down by somebody and takes no connections any more'.format(listener.endpoint))
            self._unwatch(listener)
        elif not is_listening(listener.sock) and not self._methods.heal(listener):
            self._unwatch(listener)     # nothing to be done now; the slow tick looks again
