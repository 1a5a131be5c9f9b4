"""The event loop: descriptors, what to call for each, and one clock for everything that is due later.

It knows nothing of a binder. Source: epoll(7).
"""

import select
import time

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
NOTHING = 0             # epoll tells of EPOLLHUP and EPOLLERR all the same
FAILED = select.EPOLLHUP | select.EPOLLERR


class Loop(object):
    """Waits for many descriptors at once; owns the epoll descriptor and none of the others."""

    def __init__(self):
        self._epoll = select.epoll()
        self._handlers = {}         # descriptor -> (what to call, with what beside epoll's events)
        self._next_tick = 0.0

    def descriptors(self):
        """Return the loop's own descriptor and all that it waits for (list of int)."""
        return [self._epoll.fileno()] + list(self._handlers)

    def register(self, fileno, handler, argument, events=READ):
        """Call `handler(argument, events)` when something happens; only the handler changes if the
        descriptor is known."""
        known = fileno in self._handlers
        self._handlers[fileno] = (handler, argument)
        if not known:
            self._epoll.register(fileno, events)

    def expect(self, fileno, events):
        """Change which events a registered descriptor waits for."""
        self._epoll.modify(fileno, events)

    def unregister(self, fileno):
        """Wait for a descriptor no longer; it need not be known, and must still be open."""
        if self._handlers.pop(fileno, None) is not None:
            self._epoll.unregister(fileno)

    def hurry(self, moment=0.0):
        """Have the next tick no later than at `moment` (time.monotonic; at once by default)."""
        self._next_tick = min(self._next_tick, moment)

    def turn(self, tick):
        """Wait once, call the handlers, and when its time has come `tick(now)`, which returns the moment
        at which it wants to be called next."""
        try:
            ready = self._epoll.poll(max(0.0, self._next_tick - time.monotonic()))
        except InterruptedError:
            ready = ()
        for fileno, events in ready:
            known = self._handlers.get(fileno)
            if known is not None:       # else closed by one that came before it in this round
                known[0](known[1], events)
        now = time.monotonic()
        if now >= self._next_tick:
            self._next_tick = float('inf')
            self.hurry(tick(now))
