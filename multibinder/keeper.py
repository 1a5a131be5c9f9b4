"""The claim on what was adopted, kept for as long as somebody who is no client uses it.

Without it the linger time would end, and the binder would shut down, for everybody, what the old program
still accepts on. Responsible for noticing that nobody does any more. Runs in a process of its own, whose
claim it is, and ends with it.
"""

import errno
import os
import select

from multibinder.client import Client
from multibinder.errors import Error
from multibinder.sockets import descends, open_process, users_of

KEEPER = b'multibinderctl'   # the command that a Keeper runs in
# One look is not one moment: a master that forks its worker and closes its own copy meanwhile shows neither.
# The worker was there before the copy was closed, so the next look finds it.
LOOKS = 3
TICK_MS = 1000      # between two looks, on a kernel without pidfd_open


class Keeper(object):
    """Keeps the claim on adopted listeners."""

    def __init__(self, path, listeners):
        """`path` (str or None) is the binder's; `listeners` a list of (Endpoint, fd), to be adopted."""
        self._path = path
        self._listeners = listeners
        self._inodes = {}       # inode -> Endpoint, of what is kept

    def adopt(self):
        """Give them to the binder, claimed by this process. Returns a list of (Endpoint, outcome of
        Client.adopt). Raises Error."""
        with Client(self._path) as client:
            outcomes = client.adopt(self._listeners, lease='process')
        for (endpoint, fd), outcome in zip(self._listeners, outcomes):
            if outcome != 'other':
                self._inodes[os.fstat(fd).st_ino] = endpoint
        return [(endpoint, outcome) for (endpoint, _), outcome in zip(self._listeners, outcomes)]

    def keep(self):
        """Wait until nobody uses them but those who have a claim of their own, and what these have started;
        then release them, at once: a port that nobody accepts on is to be refused, and is not to stand in
        a restart's way."""
        strangers = self._look()
        while self._inodes:
            _wait_for_end(strangers)
            strangers = self._look()

    def _look(self):
        """Release what no stranger uses; return the PIDs (set) of the strangers that use the rest."""
        try:
            with Client(self._path) as client:
                holders = {}        # inode -> PIDs of those who have a claim
                binder = client.call('status')['pid']
                for one in client.call('list'):
                    holders[one['inode']] = {claim['pid'] for claim in one['claims'] if claim['pid']}
                    # A lease of the same command is that of an offer, and about to end.
                    if any(claim['kind'] == 'process' and is_keeper(claim['pid']) and claim['pid'] < os.getpid()
                           for claim in one['claims']):
                        self._inodes.pop(one['inode'], None)    # it does the same, and needs no second
                strangers = {}      # inode -> PIDs
                for _ in range(LOOKS):
                    for pid, inodes in users_of(set(self._inodes) - set(strangers)).items():
                        for inode in inodes:
                            # The service manager above the binder has them in its fd store.
                            if not descends(binder, (pid,)) and not descends(pid, holders.get(inode, ())):
                                strangers.setdefault(inode, set()).add(pid)
                done = [inode for inode in self._inodes if inode not in strangers]
                if done:
                    client.release([self._inodes.pop(inode) for inode in done], lease='process')
                return set().union(*strangers.values()) if strangers else set()
        except Error:
            self._inodes = {}       # the binder has gone, or knows better: the claim ends with this process
            return set()


def is_keeper(pid):
    """Tell whether the process `pid` (int) is another one that keeps claims for what was adopted."""
    try:
        with open('/proc/{}/cmdline'.format(pid), 'rb') as file:
            return pid != os.getpid() and any(
                os.path.basename(word) == KEEPER for word in file.read().split(b'\0')[:3])
    except OSError:
        return False


def _wait_for_end(pids):
    """Wait until one of the processes has ended; at once when there is none."""
    poll = select.poll()
    opened = []
    timeout = None
    try:
        for pid in pids:
            try:
                pidfd = open_process(pid)
            except OSError as error:
                if error.errno == errno.ESRCH:
                    return
                timeout = TICK_MS
                continue
            opened.append(pidfd)
            poll.register(pidfd, select.POLLIN)
        if opened or timeout:
            poll.poll(timeout)
    finally:
        for pidfd in opened:
            os.close(pidfd)
