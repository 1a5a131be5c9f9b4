"""Processes as holders of claims: a claim that lasts as long as a process lives, connected or not.

Responsible for telling a process from a later one with the same PID, and for noticing its end. Sources:
pidfd_open(2), proc(5) (/proc/PID/stat, field 22).
"""

import os
import time

TICK = 1.0      # seconds between two looks, where the kernel (before 5.3) or Python (before 3.9) has no pidfd


class Process(object):
    """A living process. `start` is the moment of its start, in clock ticks since boot (int): with the PID
    it is unique."""

    __slots__ = ('pid', 'start', 'pidfd')

    def __init__(self, pid, start):
        self.pid = pid
        self.start = start
        self.pidfd = None


class Processes(object):
    """The processes that hold claims. `gone` is called with each Process that has ended."""

    def __init__(self, loop, gone):
        self._loop = loop
        self._gone = gone
        self._known = {}        # (pid, start) -> Process
        self._unwatched = set()     # those without a pidfd

    def find(self, pid, start=None):
        """Return the Process with a PID, watched from here on, or None when there is none (any more), or
        when it started at another moment than `start`."""
        found = start_time(pid)
        if found is None or start not in (None, found):
            return None
        process = self._known.get((pid, found))
        if process is None:
            process = Process(pid, found)
            self._watch(process)
            if start_time(pid) != found:    # it ended, and the pidfd may be another's
                self._forget(process)
                return None
            self._known[(pid, found)] = process
        return process

    def tick(self, now):
        """Look after those that nothing tells of. Returns when to look again (time.monotonic; inf: never)."""
        for process in [one for one in self._unwatched if start_time(one.pid) != one.start]:
            self._ended(process, 0)
        return now + TICK if self._unwatched else float('inf')

    def _watch(self, process):
        pidfd_open = getattr(os, 'pidfd_open', None)    # Python 3.9
        try:
            process.pidfd = pidfd_open(process.pid) if pidfd_open is not None else None
        except OSError:
            pass        # Linux before 5.3
        if process.pidfd is not None:
            self._loop.register(process.pidfd, self._ended, process)
        else:
            self._unwatched.add(process)
            self._loop.hurry(time.monotonic() + TICK)

    def _forget(self, process):
        self._unwatched.discard(process)
        if process.pidfd is not None:
            self._loop.unregister(process.pidfd)
            os.close(process.pidfd)
            process.pidfd = None

    def _ended(self, process, events):
        self._forget(process)
        self._known.pop((process.pid, process.start), None)
        self._gone(process)

    def release(self, process):
        """Watch a process no longer: it holds nothing any more."""
        self._forget(process)
        self._known.pop((process.pid, process.start), None)


def start_time(pid):
    """Return when a process started, in clock ticks since boot (int), or None when there is no such
    process, or only what is left of one (a zombie)."""
    try:
        with open('/proc/{}/stat'.format(pid), 'rb') as file:
            fields = file.read().rpartition(b')')[2].split()
    except OSError:
        return None
    return int(fields[19]) if fields[0] not in (b'Z', b'X') else None
