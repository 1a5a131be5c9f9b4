"""One launched haproxy of an instance, from its launch to its end.

Responsible for the process and what belongs to it: its descriptors, its words on stderr, the proof that
it serves, the signals it gets. It decides nothing: the attempt that launches it and the supervisor do.
"""

import os
import signal
import time
from collections import deque

from multibinder import log, sdnotify
from multibinder.haproxy import process

TAIL_LINES = 60
LINE_MAX = 65536
READS_AT_ONCE = 16      # a haproxy that logs to stderr must not keep its supervisor from everything else
# Before 1.8 a haproxy that does not answer (a wrapper script, an old build) is taken to serve when it has
# lived for so long with a worker. From 1.8 on only an answer counts.
SETTLED_SECONDS = 2.0

_PRIORITIES = (('[ALERT]', log.error), ('[EMERG]', log.error), ('[WARNING]', log.warning))


class Generation(object):
    """A haproxy process with its workers.

    `number` (int, from 1), `version` (Version), `pid`; `status` its exit status (int, negative for a
    signal) once it has ended, else None; `retired` when it was told to finish (time.monotonic) or None;
    `hurried` when it was told to end at once; `tail` its last lines on stderr (deque of str).
    """

    def __init__(self, loop, number, version, words, fds, command_line):
        """Start haproxy with `words` (list of str) and the descriptors `fds` (a dict, see process.spawn),
        which stay the caller's; `command_line` (a CommandLine) becomes its own. Raises HaproxyError."""
        self.number = number
        self.version = version
        self.status = None
        self.retired = None
        self.hurried = None
        self.tail = deque(maxlen=TAIL_LINES)
        self._loop = loop
        self._command_line = command_line
        self._question = command_line.proof
        self._notified = None if version.answers_early else True    # None: READY=1 is still to come
        self._notify = sdnotify.NotifySocket() if version.answers_early else None
        self._served = False
        self._quiet = False
        self._workers = []
        self._partial = b''
        if not version.has_master:
            process.adopt_orphans()     # see _tell_orphans
        self._stderr, writer = os.pipe()
        try:
            os.set_blocking(self._stderr, False)
            # SIGUSR1 lets haproxy finish what it serves when this process is killed.
            environ = process.environment()
            if self._notify is not None:
                environ['NOTIFY_SOCKET'] = self._notify.address
            self.pid = process.spawn(words, fds, stderr=writer, death_signal=signal.SIGUSR1, group=True,
                                     environ=environ)
        except BaseException:
            os.close(self._stderr)
            if self._notify is not None:
                self._notify.close()
            raise
        finally:
            os.close(writer)
        self.started = time.monotonic()
        command_line.inherited()
        loop.on_exit(self.pid, self._ended)
        loop.watch(self._stderr, self._read_stderr)
        loop.watch(self._question, self._read_answer)
        if self._notify is not None:
            loop.watch(self._notify, self._read_notify)

    def __str__(self):
        return 'generation {} (haproxy {}, PID {})'.format(self.number, self.version.text, self.pid)

    @property
    def alive(self):
        return self.status is None

    @property
    def ready(self):
        """Whether it is proved to serve. Before 1.8 a process that has lived with a worker for
        SETTLED_SECONDS counts, too."""
        return self.alive and (self._served or not self.version.has_master and self._settled())

    @property
    def refused(self):
        """What came in place of the worker's answer (str), or None."""
        if self.version.has_master and self._notified and self._question.closed and not self._served:
            return self._question.words
        return None

    @property
    def quiet(self):
        """Whether it was told to finish and takes no new connection any more, as far as it says."""
        return self._quiet or not self.alive

    @property
    def settles_after(self):
        """How long after its start `ready` is worth another look without an event (seconds), or None."""
        return None if self.version.has_master else SETTLED_SECONDS

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
        if self.alive:
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

    def _settled(self):
        if time.monotonic() < self.started + SETTLED_SECONDS:
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
        self._stop_listening()
        self._stop_asking()
        self._command_line.close()

    def _read_notify(self):
        """haproxy says how it is. From 3.1 on READY=1 comes when the worker has said so to the master, and
        only then does the master know whom to pass a question on to."""
        for pid, assignments in self._notify.receive():
            if pid == self.pid and assignments.get('READY') == '1':
                self._notified = True
        if self._notified:
            self._stop_listening()
            if not self._served and self.retired is None:
                self._ask()

    def _stop_listening(self):
        if self._notify is not None:
            self._loop.forget(self._notify)
            self._notify.close()
            self._notify = None

    def _ask(self):
        self._stop_asking()
        try:
            self._question = self._command_line.ask()
        except OSError:
            self._quiet = True      # nobody has the socket open any more
        else:
            self._loop.watch(self._question, self._read_answer)

    def _stop_asking(self):
        self._loop.forget(self._question)
        self._question.close()

    def _read_answer(self):
        if not self._question.read() and not self._question.served:
            return
        if self.retired is None:
            self._served = self._served or self._question.served
            if self._served:
                self._stop_asking()
                self._stop_listening()
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
        for mark, write in _PRIORITIES:
            if text.startswith(mark):
                write(text)
                return
        log.info(text)


def _kill(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
