"""This process and those next to it: its signals, its limits, the trial start of its successor.

Sources: signal(7), getrlimit(2), systemctl(1).
"""

import os
import resource
import signal
import time

from multibinder import peer

_REASON_MAX = 2000


class SignalPipe(object):
    """Turns signals into bytes on a descriptor that an event loop can wait for. The handlers do
    nothing: what a signal means is decided by the loop, between two events."""

    def __init__(self, signals):
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        for number in signals:
            signal.signal(number, lambda *_: None)
            signal.siginterrupt(number, False)
        signal.set_wakeup_fd(self._writer)

    def fileno(self):
        return self._reader

    def descriptors(self):
        """Return both ends of the pipe (list of int)."""
        return [self._reader, self._writer]

    def read(self):
        """Return the signals that have arrived (list of int), each kind once."""
        try:
            return sorted(set(os.read(self._reader, 4096)))
        except BlockingIOError:
            return []


def raise_nofile():
    """Raise the soft limit of open descriptors to the hard one. Returns it (int)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return hard
    except (OSError, ValueError):
        return soft


class Check(object):
    """A trial start of the code that we are about to become: an upgrade that is broken, or half
    unpacked, must not cost the sockets. Runs `COMMAND --version` in a child of ours, without waiting."""

    def __init__(self, command, environment, seconds):
        self.deadline = time.monotonic() + seconds
        self._command = command[0]
        self._status = None
        self._killed = False
        self._reader, writer = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                null = os.open(os.devnull, os.O_RDWR)
                os.dup2(null, 0)
                os.dup2(null, 1)
                os.dup2(writer, 2)
                signal.signal(signal.SIGPIPE, signal.SIG_DFL)
                os.execve(command[0], [command[0], '--version'], environment)
            except OSError as error:
                os.write(2, (error.strerror or 'cannot be executed').encode())
            finally:
                os._exit(127)
        os.close(writer)

    def kill(self):
        """End a trial that takes too long. It is still to be reaped."""
        self._killed = True
        self.deadline = float('inf')
        os.kill(self._pid, signal.SIGKILL)

    def reap(self):
        """Return whether the trial has ended, without waiting."""
        if self._status is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            self._status = status if pid else None
        return self._status is not None

    def verdict(self):
        """Return why the code must not be started (str), or None when it may. Only after `reap`."""
        with os.fdopen(self._reader, 'rb') as file:
            words = file.read(_REASON_MAX).decode('utf-8', 'replace').strip().split('\n')
        if self._killed:
            return '{} --version did not end in time'.format(self._command)
        if self._status:
            return '{} --version failed: {}'.format(self._command, words[-1] or 'it gave no reason')
        return None


def restart_is_due():
    """Tell whether systemd stops our unit in order to start it again, as far as it tells. True when in
    doubt: a file that is left costs less than a client that is refused."""
    import subprocess
    unit = peer.unit_of(os.getpid())
    try:
        output = subprocess.check_output(
            ['systemctl', '--no-legend', '--no-pager', '--full', 'list-jobs'],
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return True
    for line in output.decode('utf-8', 'replace').splitlines():
        words = line.split()
        if len(words) > 2 and words[1] == unit:
            return words[2] != 'stop'
    return True
