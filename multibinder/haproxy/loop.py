"""What happens to a supervisor: descriptors that get readable, signals, children that end, timers.

Responsible for turning these into calls, one after the other, in one thread. It knows nothing of what
they mean. Nothing here is done in a signal handler but to note the signal.
"""

import os
import selectors
import signal
import time


class Loop(object):
    """An event loop. Signals are in `signals` (list of int, in order) until somebody takes them out."""

    def __init__(self):
        self.signals = []
        self._selector = selectors.DefaultSelector()
        self._children = {}
        self._timers = {}
        self._waker = None

    def catch(self, numbers):
        """Note these signals (and SIGCHLD) from now on in place of their default effect."""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        # Written to by the interpreter when a signal comes: it ends the wait, whatever the moment.
        signal.set_wakeup_fd(writer)
        self._waker = reader
        self.watch(reader, self._drain)
        for number in numbers:
            signal.signal(number, lambda number, frame: self.signals.append(number))
        signal.signal(signal.SIGCHLD, lambda number, frame: None)

    def watch(self, source, callback):
        """Call `callback()` when `source` (a descriptor or what has a fileno) is readable."""
        self._selector.register(source, selectors.EVENT_READ, callback)

    def forget(self, source):
        """Watch `source` no more; it may be closed already."""
        try:
            self._selector.unregister(source)
        except (KeyError, ValueError):
            pass

    def on_exit(self, pid, callback):
        """Call `callback(status)` when the child ends, `status` as of process.exit_status. It is reaped
        after the call: until then the PID, and its process group, are nobody else's."""
        self._children[pid] = callback

    def reaped(self, pid):
        """The child was reaped elsewhere."""
        self._children.pop(pid, None)

    @property
    def children(self):
        """The PIDs that somebody waits for."""
        return set(self._children)

    def at(self, name, when, callback):
        """Call `callback()` at `when` (float, time.monotonic). One timer a name: a later one replaces it,
        and `when` None ends it."""
        if when is None:
            self._timers.pop(name, None)
        else:
            self._timers[name] = (when, callback)

    def turn(self, deadline=None):
        """Wait until something happens, or until `deadline` (time.monotonic, None for none), and call
        whom it concerns."""
        times = [when for when, _ in self._timers.values()]
        if deadline is not None:
            times.append(deadline)
        timeout = max(0.0, min(times) - time.monotonic()) if times else None
        for key, _ in self._selector.select(timeout):
            # An earlier call of this round may have forgotten it, and its number may be another's now.
            if self._selector.get_map().get(key.fd) is key:
                key.data()
        self._reap()
        now = time.monotonic()
        for name, (when, callback) in list(self._timers.items()):
            if when <= now and self._timers.get(name) == (when, callback):
                del self._timers[name]
                callback()

    def _drain(self):
        try:
            while os.read(self._waker, 4096):
                pass
        except BlockingIOError:
            pass

    def _reap(self):
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            callback = self._children.pop(ended.si_pid, None)
            if callback is not None:
                status = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
                callback(status)
            try:
                os.waitpid(ended.si_pid, os.WNOHANG)
            except ChildProcessError:
                pass


def wait_for(condition, seconds):
    """A step of a generator that a loop drives: `yield from wait_for(...)` goes on once `condition()` is
    true, and returns whether it was within `seconds`. What it yields is the moment it must be resumed at
    the latest; it may be resumed at any time before."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        yield deadline
    return True
