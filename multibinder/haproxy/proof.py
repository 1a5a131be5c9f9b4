"""The proof that a launched haproxy serves, and that a retired one accepts no more: answers on sockets that
it inherits.

Responsible for these sockets and for the questions on them. The worker has one of its own, a stats socket
out of a config of ours, in which a question waits from before the launch: it is answered when, and not
before, a worker has passed chroot and setuid and runs its event loop. haproxy's READY=1 says less: up to
3.0 the master sends it although the worker may be dead already (seen on 2.2, 2.6 and 3.0 with a chroot
that does not exist).

From 1.9 on the master has a command line (-S), which passes a question on to the worker. It answers later
than the worker, since up to 3.0 the master executes itself once more after the fork, and it goes on
answering when a retired worker has closed its own socket. Source: management guide, sections 9.3 and 9.4.
"""

import os
import re
import socket

from multibinder.errors import HaproxyError, reason_of

_MASTER_QUESTION = b'@1 show info\n'    # to the first worker of the present reload
_WORKER_QUESTION = b'show info\n'
_ANSWER = re.compile(br'^(Name|Version):', re.MULTILINE)
_ACCEPTS = re.compile(br'^Stopping: 0$', re.MULTILINE)
_ANSWER_MAX = 65536


class Question(object):
    """A question on a connection of its own. `fileno()` gets readable with the answer; `closed` is true
    once nothing more is to come. `answered` says whether anything came, `served` whether a worker
    answered that runs, `accepts` whether it also takes connections, and `words` (str) what came."""

    def __init__(self, path, text):
        """Ask `text` (bytes) of the command line at `path`. Raises OSError when nobody has it open."""
        self._received = b''
        self.closed = False
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._sock.setblocking(False)
            self._sock.connect(path)
            self._sock.send(text)
        except OSError:
            self._sock.close()
            raise

    def fileno(self):
        return self._sock.fileno()

    @property
    def answered(self):
        return self.closed or bool(self._received)

    @property
    def served(self):
        return bool(_ANSWER.search(self._received))

    @property
    def accepts(self):
        return bool(_ACCEPTS.search(self._received))

    @property
    def words(self):
        return self._received.decode('utf-8', 'replace').strip() or 'it closed its command line'

    def read(self):
        """Take what has come; return whether nothing more is to come."""
        try:
            data = self._sock.recv(_ANSWER_MAX)
        except BlockingIOError:
            return False
        except OSError:
            data = b''
        self._received = (self._received + data)[-_ANSWER_MAX:]
        if not data:
            self.close()
        return self.closed

    def close(self):
        self.closed = True
        self._sock.close()


class CommandLine(object):
    """The sockets of a haproxy that is about to be launched. `proof` is the Question that waits in the
    worker's, `master` the one that waits in the master's, None before 1.9. Both are files that only this
    process's user can connect to: they are an administrator's way into haproxy."""

    def __init__(self, version, runtime, number, exposes=False):
        """Make the sockets of generation `number` for a haproxy of `version` (Version), in `runtime` (a
        RuntimeDirectory). With `exposes` the worker's hands out listeners, see worker_path. Raises
        HaproxyError."""
        self._worker_path = worker_path(runtime, number)
        self._config_path = runtime.file('worker.{}.cfg'.format(number))
        self._has_master = version.has_master_cli
        self._path = runtime.file('cli.{}'.format(number)) if self._has_master else self._worker_path
        self._keeps_worker = exposes or not self._has_master    # somebody will connect to it later
        self._level = ('operator' if self._has_master else 'admin') + (' expose-fd listeners' if exposes else '')
        self._listeners = []
        self.proof = self.master = None
        try:
            self._listeners.append(_listen(self._worker_path))
            self.proof = Question(self._worker_path, _WORKER_QUESTION)
            if self._has_master:
                self._listeners.append(_listen(self._path))
                self.master = self.ask()
        except OSError as error:
            self.close()
            raise HaproxyError('cannot make a command line for haproxy in {}: {}'.format(
                runtime.path, reason_of(error)))

    def ask(self):
        """Return a new Question whether haproxy serves. Raises OSError when it has closed the socket."""
        return Question(self._path, _MASTER_QUESTION if self._has_master else _WORKER_QUESTION)

    def words(self, first):
        """Return the words (list of str) that let haproxy use the sockets, which it inherits as descriptors
        from the number `first` (int) on. Raises HaproxyError."""
        try:
            with open(self._config_path, 'w') as config:
                config.write('# Written by multibinder: here haproxy answers it.\n'
                             'global\n    stats socket fd@{} level {}\n'.format(first, self._level))
        except OSError as error:
            raise HaproxyError('cannot write {}: {}'.format(self._config_path, reason_of(error)))
        return (['-S', 'fd@{}'.format(first + 1)] if self._has_master else []) + ['-f', self._config_path]

    def fds(self):
        """Return the descriptors (list of int, the CommandLine's) that haproxy inherits, in the order of
        their numbers."""
        return [listener.fileno() for listener in self._listeners]

    def inherited(self):
        """haproxy has been started: the listeners are its own now."""
        for listener in self._listeners:
            listener.close()

    def publish(self, path):
        """haproxy serves: let `path` (str) lead to its command line, for people and their tools. The config
        stays: a master that executes itself once more may look whether it is there."""
        if not self._keeps_worker:
            _unlink(self._worker_path)
        temporary = path + '.new'
        try:
            _unlink(temporary)
            os.symlink(os.path.basename(self._path), temporary)
            os.rename(temporary, path)
        except OSError:
            pass        # a convenience; nothing here depends on it

    def close(self):
        """Close and remove all of it."""
        for question in (self.proof, self.master):
            if question is not None:
                question.close()
        self.inherited()
        for path in (self._path, self._worker_path, self._config_path):
            _unlink(path)


def worker_path(runtime, number):
    """Return the path (str) of the socket on which the worker of generation `number` answers itself."""
    return runtime.file('worker.{}'.format(number))


def _listen(path):
    """Return a UNIX socket that listens at `path`, for this user only. Raises OSError."""
    _unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Not an abstract name: anybody could connect to that.
        mask = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(mask)
        listener.listen(16)
    except OSError:
        listener.close()
        raise
    return listener


def _unlink(path):
    try:
        os.unlink(path)
    except OSError:
        pass
