"""The proof that a launched haproxy serves: an answer of its worker.

Responsible for one socket that haproxy inherits as a command line of its own, and for a question that
waits in it from before the launch. The question is answered when, and not before, a worker has passed
chroot and setuid and runs its event loop. haproxy's READY=1 says less: up to 3.0 the master sends it
although the worker may be dead already (seen on 2.2, 2.6 and 3.0 with a chroot that does not exist).

From 1.9 on it is the master's command line (-S), which passes the question on to the worker; before, a
stats socket in a config of ours. Source: management guide, sections 9.3 and 9.4.
"""

import os
import re
import socket

from multibinder.errors import HaproxyError, reason_of

_MASTER_QUESTION = b'@1 show info\n'    # to the first worker of the present reload
_WORKER_QUESTION = b'show info\n'
_ANSWER = re.compile(br'^(Name|Version):', re.MULTILINE)
_ANSWER_MAX = 65536


class Proof(object):
    """A question to a haproxy that is about to be launched.

    `listener` is the socket.socket that haproxy has to inherit, ours to close; `fileno()` gets readable
    with the answer; `answered` and `refused` (None or str: what came in place of an answer) say how it
    went. The socket is a file at `path` that only the owner of this process can connect to: it is an
    administrator's way into haproxy.
    """

    def __init__(self, version, path, config_path):
        """Make the socket for a haproxy of `version` (Version) at `path`; `config_path` is where a config
        of ours may be written. Raises HaproxyError."""
        self._through_master = version.has_master_cli
        self._path = path
        self._config_path = config_path
        self._received = b''
        self.answered = False
        self.refused = None
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _unlink(path)
            # Not an abstract name: anybody could connect to that.
            mask = os.umask(0o177)
            try:
                self.listener.bind(path)
            finally:
                os.umask(mask)
            self.listener.listen(16)
            self._connection.setblocking(False)
            self._connection.connect(path)
            self._connection.send(_MASTER_QUESTION if self._through_master else _WORKER_QUESTION)
        except OSError as error:
            self.close()
            raise HaproxyError('cannot make a command line for haproxy at {}: {}'.format(path, reason_of(error)))

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

    def fileno(self):
        return self._connection.fileno()

    def read(self):
        """Take what has come. Returns whether nothing more is to be waited for."""
        try:
            data = self._connection.recv(_ANSWER_MAX)
        except BlockingIOError:
            return False
        except OSError as error:
            self.refused = reason_of(error)
            return True
        self._received = (self._received + data)[-_ANSWER_MAX:]
        if _ANSWER.search(self._received):
            self.answered = True
        elif not data or b'\n' in self._received:
            self.refused = self._received.decode('utf-8', 'replace').strip() or 'it closed the connection'
        return self.answered or self.refused is not None

    def inherited(self):
        """haproxy has been started: close what is its own now."""
        self.listener.close()

    def publish(self, path):
        """The answer is there: give the socket the name (str) under which the serving generation's
        command line is found."""
        self._connection.close()
        _unlink(self._config_path)
        try:
            os.rename(self._path, path)
        except OSError:
            pass        # a convenience for people; nothing here depends on it

    def close(self):
        """Give up: close all and remove the files."""
        self._connection.close()
        self.listener.close()
        _unlink(self._path)
        _unlink(self._config_path)


def _unlink(path):
    try:
        os.unlink(path)
    except OSError:
        pass
