"""Which numbers the descriptors get that haproxy inherits.

haproxy refuses a number that its table of descriptors cannot hold, and the table is about as large as
there are listeners and connections: low and dense is right. From 2.5 to 3.0, though, the master
re-executes itself into a mode for which it sizes the table by 100 connections, while it still has the
inherited descriptors; whatever it opens itself then gets a number behind them and is refused (seen with
250 and more). So with many listeners a few low numbers stay free, for the master's own. That leaves the
owner's maxconn alone, which `-n` would not.
"""

import re

FIRST = 3           # the renderer's numbers begin here: behind stdin, stdout, stderr
FEW = 100           # up to here nothing is left free
FREE = 20           # epoll, the pair to the worker, and the connections of -S, at most 10 for each

_DESCRIPTOR = re.compile(r'fd@(\d+)')


class Layout(object):
    """Numbers for `count` listeners and the few sockets that are ours: `listeners` is the first number of
    the former, `ours` of the latter. Both follow each other."""

    def __init__(self, count):
        if count > FEW:
            self.ours = FIRST
            self.listeners = FIRST + FREE
        else:
            self.listeners = FIRST
            self.ours = FIRST + count

    def place(self, listeners, ours=()):
        """Return a dict of the number in haproxy to the descriptor here, as Child.become takes it."""
        placed = {self.listeners + index: fd for index, fd in enumerate(listeners)}
        placed.update((self.ours + index, fd) for index, fd in enumerate(ours))
        return placed


def renumber(text, count, offset):
    """Return a rendered text (str) whose `count` descriptors, numbered from FIRST on, are numbered from
    FIRST + `offset` on. Any other number stands as it is."""
    if not offset:
        return text

    def moved(match):
        number = int(match.group(1))
        return 'fd@{}'.format(number + offset) if FIRST <= number < FIRST + count else match.group(0)
    return _DESCRIPTOR.sub(moved, text)


def with_addresses(text, addresses):
    """Return a rendered text (str) to be compared: for each descriptor the address that it stands for, out
    of `addresses` (list of str, in the order of the descriptors), or 'fd@N' for one beyond them."""
    first = Layout(len(addresses)).listeners

    def named(match):
        index = int(match.group(1)) - first
        return addresses[index] if 0 <= index < len(addresses) else 'fd@N'
    return _DESCRIPTOR.sub(named, text)
