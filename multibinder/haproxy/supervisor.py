"""The life of an instance: what is launched, kept, ended, and when the wrapper ends itself.

This class decides; everything else in this package does one thing when told. The decisions are all in
`_decide`, which runs after whatever happened. Signals are only queued by their handlers.
"""

import os
import signal
import time

from multibinder import log, sdnotify
from multibinder.errors import Error, HaproxyError, reason_of
from multibinder.haproxy import process
from multibinder.haproxy.attempt import launch, sources_of
from multibinder.haproxy.command import Binary
from multibinder.haproxy.config import Pidfile, RenderedConfig
from multibinder.haproxy.control import Control
from multibinder.haproxy.instance import RuntimeDirectory, instance_name
from multibinder.haproxy.listeners import Listeners
from multibinder.haproxy.loop import Loop, wait_for
from multibinder.haproxy.settings import SocketPath
from multibinder.haproxy.state import ADDRESSES_FILE, FILE as STATE_FILE, remove_state, write_state

RELOADS = (signal.SIGUSR2, signal.SIGHUP)
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
# A worker takes the signal within milliseconds; one that hangs must not hold up a reload. Before 1.9 one that
# accepts no more cannot be told from one that does not answer.
QUIET_SECONDS = 5.0
QUIET_SECONDS_UNTOLD = 1.0
SETTLE_SECONDS = 5.0    # for a master to answer whose worker does
HURRY_SECONDS = 5.0     # a haproxy that was told to end at once has nothing to wait for
EXIT_DIED = 3       # haproxy ended by itself with a status that means something else here


class Supervisor(object):
    """An instance under supervision."""

    def __init__(self, command, settings, binder_path):
        """`command` is a Command; `binder_path` (str) the binder's socket, empty for none."""
        command.check_supervised()
        sources = sources_of(command)
        self.name = instance_name(sources[0])
        self._command = command
        self._settings = settings
        self._binary = Binary(command.prefix)
        self._runtime = RuntimeDirectory(self.name)
        self._loop = Loop()
        self._listeners = Listeners(self._loop, SocketPath(binder_path), settings.binder_timeout) \
            if binder_path else None
        self._configs = [RenderedConfig(source.config, source.template) for source in sources if source.template]
        self._control = None

        self._serving = None        # the Generation that serves
        self._old = []              # Generations that were told to finish, oldest first
        self._attempt = None        # the generator of a launch under way
        self._resume_at = None
        self._number = 0            # of the last generation that came to serve
        self._reload_wanted = True  # the start is a reload without an old generation
        self._stopping = 0          # how often we were told to
        self._outcome = (0, '')     # of the last reload
        self._changed = None        # when it ended, or the start did (time.time)
        self._failures = 0          # reloads that failed
        self._unheld = []           # sentences on what the binder cannot hold
        self._exit = None

    def run(self):
        """Supervise until the end; return the exit status (int). Raises an Error when the first
        generation does not come to serve."""
        process.close_on_exec_all()
        process.raise_descriptor_limit()
        self._runtime.make()
        self._control = Control(self._loop, self._runtime.file('control'))
        try:
            self._runtime.clean()
            for config in self._configs:
                config.recover()
            self._loop.catch(RELOADS + STOPS)
            while True:
                while self._decide():
                    pass
                if self._exit is not None:
                    return self._exit
                self._loop.turn(self._resume_at)
        finally:
            self._clean_up()

    def _decide(self):
        """Do what follows from what has happened: every decision is here. Return whether something was
        done from which more may follow."""
        self._take_signals()
        for generation in [old for old in self._old if not old.alive]:
            self._old.remove(generation)
            log.info('{} has finished ({})'.format(generation, process.describe_exit(generation.status)))
            self._tell_state()
        self._bound_old()
        if self._stopping:
            self._stop()
        elif self._attempt is not None:
            return self._go_on()
        elif self._serving is not None and not self._serving.alive:
            self._died()
        elif self._reload_wanted:
            self._begin()
            return True
        elif self._control.waited_for:
            self._control.answer(*self._outcome)
        return False

    def _take_signals(self):
        while self._loop.signals:
            number = self._loop.signals.pop(0)
            if number in RELOADS:
                # However often it is asked for during a reload, one more does what all of them want.
                self._reload_wanted = True
            else:
                self._stopping += 1

    # A reload: begun, driven on by whatever happens, ended one way or the other.

    def _begin(self):
        self._reload_wanted = False
        if self._serving is not None:
            log.info('reloading {}'.format(self.name))
            sdnotify.notify('RELOADING=1', 'MONOTONIC_USEC={}'.format(int(time.monotonic() * 1000000)))
        self._attempt = self._replace()

    def _go_on(self):
        """Drive the reload; return whether it has ended."""
        try:
            self._resume_at = next(self._attempt)
            return False
        except StopIteration:
            failure = None
        except Error as error:
            failure = error
        except OSError as error:
            failure = HaproxyError('the system refused{}: {}'.format(
                ' ' + error.filename if error.filename else '', reason_of(error)))
        except Exception as error:      # a fault of ours must not end an instance that serves
            failure = HaproxyError('internal error: {!r}'.format(error))
        self._attempt = None
        self._resume_at = None
        if failure is not None:
            self._failed(failure)
        return True

    def _replace(self):
        """Put a new generation in the place of the one that serves: a generator (see loop.wait_for)."""
        launched = yield from launch(self._loop, self._number + 1, self.name, self._command, self._binary,
                                     self._listeners, self._runtime, self._settings, self._old.append)
        former, self._serving = self._serving, launched.generation
        self._number = self._serving.number
        if former is not None:
            self._retire(former)
        self._serving.publish(self._runtime.file('cli'))
        for config in launched.configs:
            config.keep()
        if launched.claim is not None:
            self._listeners.commit(launched.claim)
        self._outcome = (0, '')
        self._unheld = list(launched.unheld)
        self._changed = time.time()
        write_state(self._runtime.file(ADDRESSES_FILE), [one.haproxy_address() for one in launched.endpoints])
        # Whoever waits for the reload expects that all of the new generation runs, and that it gives the next answer.
        yield from wait_for(lambda: (former is None or former.quiet) and self._serving.settled
                            or not self._serving.alive,
                            QUIET_SECONDS if self._serving.version.has_master_cli else QUIET_SECONDS_UNTOLD)
        if not self._serving.alive:
            return      # see _died
        log.info('{} of {} serves'.format(self._serving, self.name))
        self._tell_state('READY=1', 'MAINPID={}'.format(os.getpid()))

    def _failed(self, error):
        if self._serving is None:
            raise error
        self._outcome = (error.exit_status, 'reload of {} failed, {} serves on: {}'.format(
            self.name, self._serving, error) if self._serving.alive else 'reload of {} failed: {}'.format(
                self.name, error))
        log.error(self._outcome[1])
        self._failures += 1
        self._changed = time.time()
        self._tell_state('READY=1')

    # The end of a generation.

    def _retire(self, generation):
        generation.retire()
        if generation.alive:
            self._old.append(generation)

    def _bound_old(self):
        """Hurry the generations that drain when they are too many or too old, kill those that do not
        take notice, and come back when the next one is due."""
        now = time.monotonic()
        age = self._settings.old_age
        excess = len(self._old) - self._settings.max_old if self._settings.max_old else 0
        due = []
        for index, generation in enumerate(self._old):
            if generation.hurried is None and (index < excess or age and now >= generation.retired + age):
                log.warning('{} has drained for {:.0f} s and is ended with what it still serves'.format(
                    generation, now - generation.retired))
                generation.hurry()
            if generation.hurried is not None:
                if now >= generation.hurried + HURRY_SECONDS:
                    generation.kill()
                else:
                    due.append(generation.hurried + HURRY_SECONDS)
            elif age:
                due.append(generation.retired + age)
        self._loop.at('old', min(due) if due else None, lambda: None)

    # The end of the instance.

    def _died(self):
        """haproxy has ended by itself: so do we, and systemd starts both again."""
        status = self._serving.status
        reason = '{} of {} has ended ({})'.format(self._serving, self.name, process.describe_exit(status))
        log.error(reason)
        self._outcome = (1, reason)
        self._control.answer(*self._outcome)
        # 1 and 2 say that the same would happen again, and 0 that all is well.
        self._exit = 128 - status if status < 0 else status if status > 2 else EXIT_DIED

    def _stop(self):
        """Tell all that runs to finish, and wait for it unless we are to leave."""
        if self._attempt is not None:
            self._attempt.close()
            self._attempt = None
        if self._serving is not None:
            log.info('stopping {}'.format(self.name))
            sdnotify.notify('STOPPING=1')
            self._retire(self._serving)
            self._serving = None
            if self._listeners is not None:
                self._listeners.close()     # nobody accepts any more: lingering begins now, not after the drain
        if self._stopping > 1 and not self._settings.leave_on_stop:
            for generation in self._old:
                generation.hurry()
            self._stopping = 1
        if not self._old:
            self._exit = 0
        elif self._settings.leave_on_stop:
            # One that has just been launched has to be told again once it is settled; see Generation.settled.
            until = max([generation.retired + SETTLE_SECONDS for generation in self._old if not generation.settled],
                        default=0.0)
            if time.monotonic() >= until:
                self._exit = 0
            else:
                self._loop.at('settle', until, lambda: None)

    def _clean_up(self):
        """Leave nothing behind but what still finishes by itself."""
        if self._attempt is not None:
            self._attempt.close()
        if self._serving is not None and self._serving.alive:
            self._retire(self._serving)
        for generation in self._old:
            generation.leave()
        if self._listeners is not None:
            self._listeners.close()
        if self._number:
            Pidfile(self._command.pidfile).remove()
        try:
            os.unlink(self._runtime.file('cli'))
        except OSError:
            pass
        remove_state(self._runtime.file(STATE_FILE))
        remove_state(self._runtime.file(ADDRESSES_FILE))
        self._control.close()

    def _tell_state(self, *assignments):
        """Tell systemd, and whoever looks into the runtime directory, how things are."""
        if self._serving is None:
            return
        words = '{} serves'.format(self._serving)
        if self._old:
            words += '; {} older still finish: {}'.format(
                len(self._old), ', '.join('PID {}'.format(generation.pid) for generation in self._old))
        if self._outcome[0]:
            words += '; the last reload failed'
        sdnotify.notify(*(assignments + ('STATUS=' + words,)))
        write_state(self._runtime.file(STATE_FILE), {
            'name': self.name, 'wrapper': os.getpid(), 'generation': self._serving.number,
            'serving': self._serving.pid, 'version': self._serving.version.text, 'changed': self._changed,
            'reloads_succeeded': self._number - 1, 'reloads_failed': self._failures,
            'failure': self._outcome[1] or None, 'unheld': self._unheld,
            'draining': [generation.pid for generation in self._old]})


def supervise(command, settings, binder_path):
    """Run the instance of a Command until its end; return the exit status (int). Raises an Error."""
    return Supervisor(command, settings, binder_path).run()
