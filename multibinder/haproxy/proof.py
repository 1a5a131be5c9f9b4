"""The proof that a launched haproxy serves, and that a retired one accepts no more: answers of its worker.

Responsible for one socket that haproxy inherits as a command line of its own, and for the questions on
it. The first one waits in it from before the launch; it is answered when, and not before, a worker has
passed chroot and setuid and runs its event loop. haproxy's READY=1 says less: up to 3.0 the master sends
it although the worker may be dead already (seen on 2.2, 2.6 and 3.0 with a chroot that does not exist).

From 1.9 on it is the master's command line (-S), which passes a question on to the worker; before, a
stats socket in a config of ours. Source: management guide, sections 9.3 and 9.4.
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
    once nothing more is to come. Then `served` says whether a worker answered that runs, `accepts`
    whether it also takes connections, and `words` (str) what came at all."""

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
    """The command line of a haproxy that is about to be launched.

    `listener` is the socket.socket that haproxy has to inherit, ours to close; `proof` the Question that
    waits in it. It is a file at `path` that only this process's user can connect to: it is an
    administrator's way into haproxy.
    """

    def __init__(self, version, path, config_path):
        """Make the socket for a haproxy of `version` (Version) at `path`; `config_path` is where a config
        of ours may be written. Raises HaproxyError."""
        self._through_master = version.has_master_cli
        self._question = _MASTER_QUESTION if self._through_master else _WORKER_QUESTION
        self._config_path = config_path
        self.path = path
        self.proof = None
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _unlink(path)
            # Not an abstract name: anybody could connect to that.
            mask = os.umask(0o177)
            try:
                self.listener.bind(path)
            finally:
                os.umask(mask)
            self.listener.listen(16)
            self.proof = self.ask()
        except OSError as error:
            self.close()
            raise HaproxyError('cannot make a command line for haproxy at {}: {}'.format(path, reason_of(error)))

    def ask(self):
        """Return a new Question whether haproxy serves. Raises OSError when it has closed the socket."""
        return Question(self.path, self._question)

    def words(self, number):
        """Return the words (list of str) that let haproxy use the socket, which it inherits as descriptor
        `number`. Raises HaproxyError."""
        if self._through_master:
            return ['-S', 'fd@{}'.format(number)]
        try:
            with open(self._config_path, 'w') as config:
                config.write('# Written by multibinder: haproxy answers here once it serves.\n'
                             'global\n    stats socket fd@{} level admin\n'.format(number))
        except OSError as error:
            raise HaproxyError('cannot write {}: {}'.format(self._config_path, reason_of(error)))
        return ['-f', self._config_path]

    def inherited(self):
        """haproxy has been started: the listener is its own now."""
        self.listener.close()

    def publish(self, path):
        """haproxy serves: let `path` (str) lead to its command line, for people and their tools."""
        _unlink(self._config_path)
        temporary = path + '.new'
        try:
            _unlink(temporary)
            os.symlink(os.path.basename(self.path), temporary)
            os.rename(temporary, path)
        except OSError:
            pass        # a convenience; nothing here depends on it

    def close(self):
        """Close and remove all of it."""
        if self.proof is not None:
            self.proof.close()
        self.listener.close()
        _unlink(self.path)
        _unlink(self._config_path)


def _unlink(path):
    try:
        os.unlink(path)
    except OSError:
        pass
