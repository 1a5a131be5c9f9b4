"""This process and what it becomes: its signals, limits and descriptors, the trial start of its successor.

Sources: signal(7), getrlimit(2), fcntl(2), execve(2), systemctl(1).
"""

import fcntl
import os
import resource
import signal
import time

_REASON_MAX = 2000
_JOB_QUESTIONS = 3      # a busy service manager may answer only at the second


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


def place(fds, writer=None, stdout=None, stderr=None):
    """In a process about to exec: put the descriptors of `fds` (a dict, number to descriptor here) where
    they belong, close all others but 0, 1, 2, and return the new number of `writer` (None for none),
    which the exec closes. Irrevocable for the process that calls it."""
    above = max(list(fds) + [2]) + 1

    def aside(fd):
        # Out of the way first: a source may sit on a number that is another one's target.
        return fd if fd >= above else fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above)

    placed = [number for number, fd in fds.items() if number == fd]
    sources = [(number, aside(fd)) for number, fd in fds.items() if number != fd]
    standard = [(number, aside(fd)) for number, fd in ((1, stdout), (2, stderr)) if fd is not None]
    writer = None if writer is None else aside(writer)
    for number in placed:
        os.set_inheritable(number, True)
    for number, fd in sources + standard:
        os.dup2(fd, number)         # not close-on-exec: this is the moment and the process
    close_all_but(sorted(fds) + ([] if writer is None else [writer]))
    return writer


def close_all_but(keep):
    """Close every descriptor above stderr but those of `keep` (list of int, ascending)."""
    first = 3
    for fd in keep + [_above_all()]:
        if fd > first:
            os.closerange(first, fd)
        first = fd + 1


def _above_all():
    """Return a number (int) that is above every descriptor of this process: the size of its table, which
    proc(5) tells faster than it lists a thousand of them."""
    try:
        with open('/proc/self/status', errors='replace') as status:
            for line in status:
                if line.startswith('FDSize:'):
                    return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return max(open_fds()) + 1


def open_fds():
    """List this process's descriptors (list of int)."""
    try:
        return [int(name) for name in os.listdir('/proc/self/fd')]
    except OSError:
        return list(range(resource.getrlimit(resource.RLIMIT_NOFILE)[0]))


def reset_signals():
    """Give every signal its default disposition and unblock all: what a new program expects."""
    for number in range(1, signal.NSIG):
        try:
            signal.signal(number, signal.SIG_DFL)
        except (OSError, ValueError):
            pass        # KILL, STOP, and those that the C library keeps for itself
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


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
    """Tell whether systemd stops our unit in order to start it again, as far as it tells: (bool, why it is
    in doubt, str or None). True when in doubt: a file that is left costs less than a client that is
    refused."""
    import subprocess       # here, since only a binder that stops needs both
    from multibinder import peer
    unit = peer.unit_of(os.getpid())
    reason = None
    for _ in range(_JOB_QUESTIONS):
        try:
            output = subprocess.check_output(
                ['systemctl', '--no-legend', '--no-pager', '--full', 'list-jobs'],
                stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT, timeout=5)
        except (OSError, subprocess.SubprocessError) as error:
            words = getattr(error, 'output', None)
            reason = words.decode('utf-8', 'replace').strip() if words else str(error)
            continue
        for line in output.decode('utf-8', 'replace').splitlines():
            words = line.split()
            if len(words) > 2 and words[1] == unit:
                return words[2] != 'stop', None
        # A signal that somebody else has sent: systemd will start us again, if it does.
        reason = 'there is no job for {}'.format(unit)
    return True, reason
