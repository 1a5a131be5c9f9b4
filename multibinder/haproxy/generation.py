"""One launched haproxy of an instance, from its launch to its end.

Responsible for the process and what belongs to it: its descriptors, its words on stderr, the proof that
it serves, the signals it gets. It decides nothing: the attempt that launches it and the supervisor do.
"""

import os
import signal
import time
from collections import deque

from multibinder import log
from multibinder.haproxy import process
from multibinder.haproxy.child import Child

TAIL_LINES = 60
LINE_MAX = 65536
READS_AT_ONCE = 16      # a haproxy that logs to stderr must not keep its supervisor from everything else
# Before 1.8 a haproxy that does not answer (a wrapper script, an old build) is taken to serve when it has
# lived for so long with a worker. From 1.8 on only an answer counts.
LIVED_SECONDS = 2.0

# What a master says, as an alert, when its worker has ended before it could be asked whether it still
# accepts: the question is ours, and this is one of its answers.
_UNANSWERED = 'socketpair: Cannot transfer the fd'
_PRIORITIES = (('[ALERT]', log.error), ('[EMERG]', log.error), ('[WARNING]', log.warning))


class Generation(object):
    """A haproxy process with its workers.

    `number` (int, from 1), `version` (Version), `pid`; `status` its exit status (int, negative for a
    signal) once it has ended, else None; `retired` when it was told to finish (time.monotonic) or None;
    `hurried` when it was told to end at once; `tail` its last lines on stderr (deque of str).
    """

    def __init__(self, loop, number, version, child, words, fds, command_line):
        """Let `child` (a Child, the caller's until this returns) become haproxy, with `words` (list of str)
        and the descriptors `fds` (a dict, see Child.become), which stay the caller's; `command_line` (a
        CommandLine) becomes its own. Raises HaproxyError."""
        self.number = number
        self.version = version
        self.status = None
        self.retired = None
        self.hurried = None
        self.tail = deque(maxlen=TAIL_LINES)
        self._loop = loop
        self._command_line = command_line
        self._question = command_line.proof     # whether it serves, and once it is retired whether it accepts
        self._master = command_line.master
        self._served = False
        self._quiet = False
        self._workers = []
        self._partial = b''
        if not version.has_master:
            process.adopt_orphans()     # see _tell_orphans
        self._stderr, writer = os.pipe()
        try:
            os.set_blocking(self._stderr, False)
            child.become(words, fds, stderr=writer)
        except BaseException:
            os.close(self._stderr)
            raise
        finally:
            os.close(writer)
        self.pid = child.pid
        self.started = time.monotonic()
        command_line.inherited()
        loop.on_exit(self.pid, self._ended)
        loop.watch(self._stderr, self._read_stderr)
        loop.watch(self._question, self._read_answer)
        if self._master is not None:
            loop.watch(self._master, self._read_master)

    def __str__(self):
        return 'generation {} (haproxy {}, PID {})'.format(self.number, self.version.text, self.pid)

    @property
    def alive(self):
        return self.status is None

    @property
    def ready(self):
        """Whether it is proved to serve. Before 1.8 a process that has lived with a worker for
        LIVED_SECONDS counts, too."""
        return self.alive and (self._served or not self.version.has_master and self._has_lived())

    @property
    def settled(self):
        """Whether its master has come to answer, too, or it has ended. From 2.5 to 3.0 that is a moment after
        the worker: the master executes itself once more, and a signal that it gets meanwhile may be lost."""
        return self._master is None or self._master.answered

    @property
    def refused(self):
        """What came in place of the worker's answer (str), or None."""
        if not self.version.has_master or self._served:
            return None
        if self._question.closed:
            return self._question.words
        # Of a worker that is gone, in a master that stays. From 3.1 on it says the same of one that is to come.
        if self._master is not None and self._master.closed and not self._master.served \
                and not self.version.answers_early:
            return self._master.words
        return None

    @property
    def quiet(self):
        """Whether it was told to finish and takes no new connection any more, as far as it says."""
        return self._quiet or not self.alive

    @property
    def proved_after(self):
        """How long after its start `ready` is worth another look without an event (seconds), or None."""
        return None if self.version.has_master else LIVED_SECONDS

    def publish(self, path):
        """It serves: `path` (str) leads to its command line from here on."""
        self._command_line.publish(path)
        self._workers = self._find_workers()

    def retire(self):
        """Tell it to finish: no new connection, and the end with the last one. `quiet` says when the
        first part is done."""
        if self.retired is None:
            self.retired = time.monotonic()
        self._signal(signal.SIGUSR1)
        if self.alive and self.settled:
            self._ask()

    def hurry(self):
        """Tell it to end now, with what it still serves."""
        if self.hurried is None:
            self.hurried = time.monotonic()
        self._signal(signal.SIGTERM)

    def kill(self):
        """End it and its workers, whatever they do."""
        if self.alive:
            self._kill_all()

    def leave(self):
        """Remove what it has in the file system: it finishes by itself, with nobody to watch it."""
        self._stop_asking()
        self._command_line.close()

    def abandon(self):
        """End it, whatever it does, and wait until it is gone. For one that is not proved to serve."""
        if self.alive:
            self._kill_all()
            self._loop.reaped(self.pid)
            _, wait_status = os.waitpid(self.pid, 0)
            self._finish(process.exit_status(wait_status))

    def _signal(self, number):
        if not self.alive:
            return
        # Alive means not yet reaped: the PID cannot be anybody else's.
        os.kill(self.pid, number)
        if not self.version.has_master:
            # The process that -Ds leaves in the foreground only waits; its workers have to be told.
            self._workers = self._find_workers()
            for pid in self._workers:
                _kill(pid, number)

    def _kill_all(self):
        for pid in self._find_workers():
            _kill(pid, signal.SIGKILL)
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except OSError:
            os.kill(self.pid, signal.SIGKILL)

    def _find_workers(self):
        return process.children_of(self.pid)

    def _has_lived(self):
        if time.monotonic() < self.started + LIVED_SECONDS:
            return False
        self._workers = self._find_workers()
        return bool(self._workers)

    def _ended(self, status):
        """The process has ended and is a zombie: its group is still its own."""
        if self._served or self.retired is not None:
            self._tell_orphans()
        else:
            self._kill_all()
        self._finish(status)

    def _tell_orphans(self):
        """Workers whose master was killed end by themselves from 1.8 on; before, they would serve the old
        config for good. They are this process's children now (PR_SET_CHILD_SUBREAPER)."""
        if not self.version.has_master:
            adopted = set(process.children_of(os.getpid()))
            for pid in self._workers:
                if pid in adopted:
                    _kill(pid, signal.SIGUSR1)

    def _finish(self, status):
        self.status = status
        self._read_stderr()
        if self._stderr >= 0:
            self._loop.forget(self._stderr)
            os.close(self._stderr)
            self._stderr = -1
        if self._partial:
            self._said(self._partial)
            self._partial = b''
        self._stop_asking()
        self._command_line.close()

    def _read_master(self):
        before = self.settled
        if self._master.read():
            self._loop.forget(self._master)
        if not before and self.hurried is not None:
            self.hurry()
        elif not before and self.retired is not None:
            self.retire()

    def _ask(self):
        self._loop.forget(self._question)
        self._question.close()
        try:
            self._question = self._command_line.ask()
        except OSError:
            self._quiet = True      # nobody has the socket open any more
        else:
            self._loop.watch(self._question, self._read_answer)

    def _stop_asking(self):
        for question in (self._question, self._master):
            if question is not None:
                self._loop.forget(question)
                question.close()

    def _read_answer(self):
        if not self._question.read() and not self._question.served:
            return
        if self.retired is None:
            self._served = self._served or self._question.served
            if self._served:
                self._loop.forget(self._question)
                self._question.close()
            elif self._question.closed:
                self._loop.forget(self._question)
        elif self._question.closed:
            self._loop.forget(self._question)
            if self._question.accepts:
                self._ask()         # the signal has not reached the worker yet
            else:
                self._quiet = True

    def _read_stderr(self):
        for _ in range(READS_AT_ONCE):
            if self._stderr < 0:
                return
            try:
                data = os.read(self._stderr, LINE_MAX)
            except BlockingIOError:
                return
            if not data:
                self._loop.forget(self._stderr)
                os.close(self._stderr)
                self._stderr = -1
                return
            lines = (self._partial + data).split(b'\n')
            self._partial = lines.pop()
            for line in lines:
                self._said(line)
            if len(self._partial) > LINE_MAX:
                self._said(self._partial)
                self._partial = b''

    def _said(self, line):
        text = line.decode('utf-8', 'backslashreplace').rstrip()
        if not text:
            return
        self.tail.append(text)
        if self.retired is not None and _UNANSWERED in text:
            return
        for mark, write in _PRIORITIES:
            if text.startswith(mark):
                write(text)
                return
        log.info(text)


def child_to_be():
    """Return a Child, the caller's, that a Generation can let become haproxy: the kernel lets it finish
    what it serves (SIGUSR1) when this process is killed."""
    return Child(death_signal=signal.SIGUSR1, group=True)


def _kill(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
