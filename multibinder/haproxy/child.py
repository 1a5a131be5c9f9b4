"""A process of ours that becomes another program, with exactly the descriptors and the state that it is
meant to have.

Responsible for fork, exec and what lies between them. Not for the life of the program afterwards: who
makes a Child reaps it. The fork may come long before it is known what the child will become: what it does
for itself until then takes no time from a reload. The subprocess module is not used: it cannot place
descriptors, and it costs a long-lived wrapper a megabyte.
"""

import fcntl
import json
import os
import select
import signal
import socket
import struct
import time

from multibinder import wire
from multibinder.errors import HaproxyError, reason_of
from multibinder.haproxy.process import environment, exit_status, prctl, restore_descriptor_limit
from multibinder.process import close_all_but, place, reset_signals

PR_SET_PDEATHSIG = 1            # prctl(2), linux/prctl.h
_SIZE = struct.Struct('=I')     # of the words that follow: JSON of [argv, environment, numbers, stdout, stderr]
_DIED = 'the process that was to become it has ended'


class Child(object):
    """A forked process that waits to be told what to become. `pid` (int) is its own from the first to the
    last; it is the caller's to reap once `become` has returned, and ends with `close` before."""

    def __init__(self, death_signal=None, group=False):
        """Fork. `death_signal` is sent by the kernel to the child when this process dies; `group` gives it
        a process group of its own, out of reach of a terminal's Ctrl-C. Raises OSError."""
        parent = os.getpid()
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.pid = os.fork()
        except OSError:
            self._channel.close()
            theirs.close()
            raise
        if self.pid == 0:
            _wait_and_become(theirs.detach(), parent, death_signal, group)
        theirs.close()
        if group:
            try:
                os.setpgid(self.pid, self.pid)  # the child does the same; whoever is first, it is done on return
            except OSError:
                pass

    def become(self, argv, fds=(), stderr=None, stdout=None, environ=None):
        """Let the child run a program, and return when it does.

        `argv` is a list of str, whose first is looked up in PATH. `fds` maps the number in the child (from
        3 on) to the descriptor here; apart from these and 0, 1, 2 the program has none. `stdout` and
        `stderr` replace those two. All descriptors stay the caller's. Signal mask and dispositions are the
        default ones: haproxy inherits both. Raises HaproxyError when the program cannot be run: then the
        child has ended and been reaped.
        """
        fds = dict(fds)
        numbers = sorted(fds)
        standard = [fd for fd in (stdout, stderr) if fd is not None]
        words = json.dumps([argv, environment() if environ is None else environ, numbers, stdout is not None,
                            stderr is not None]).encode('ascii')
        passed = [fds[number] for number in numbers] + standard
        try:
            self._channel.sendall(_SIZE.pack(len(words)) + words)
            for start in range(0, len(passed), wire.MAX_FDS):
                wire.send(self._channel, b'.', passed[start:start + wire.MAX_FDS])
            failed = b''.join(iter(lambda: self._channel.recv(4096), b''))      # its end tells that exec succeeded
        except OSError as error:
            failed = '{} ({})'.format(_DIED, reason_of(error)).encode()
        if failed:
            self.close()
            raise HaproxyError('cannot run {}: {}'.format(argv[0], failed.decode('utf-8', 'replace')))
        self._channel.close()
        self._channel = None

    def close(self):
        """End a child that has become nothing, and reap it."""
        if self._channel is None:
            return
        self._channel.close()       # the end of the stream ends it
        self._channel = None
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            pass                    # a loop that reaps whatever ends was first


def capture(argv, deadline, fds=()):
    """Run a short program to its end. Returns (status, output): its exit status (int, negative for a
    signal) and what it wrote to stdout and stderr (bytes). It is killed `deadline` seconds (float) from
    now. Raises HaproxyError when it cannot be run or does not end."""
    reader, writer = os.pipe()
    end = time.monotonic() + deadline
    pid = None
    chunks = []
    try:
        try:
            child = Child(death_signal=signal.SIGKILL)
            child.become(argv, fds, stdout=writer, stderr=writer)
            pid = child.pid
        finally:
            os.close(writer)
        poll = select.poll()
        poll.register(reader, select.POLLIN)
        while True:
            left = end - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise HaproxyError('{} did not end in {:g} s'.format(' '.join(argv), deadline))
            data = os.read(reader, 65536)
            if not data:
                break
            chunks.append(data)
        status = exit_status(os.waitpid(pid, 0)[1])
        pid = None
        return status, b''.join(chunks)
    finally:
        os.close(reader)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _wait_and_become(channel, parent, death_signal, group):
    """The whole life of the forked process; `channel` is its descriptor. Never returns."""
    try:
        signal.set_wakeup_fd(-1)        # its other end is the parent's
        close_all_but([channel])
        if group:
            os.setpgid(0, 0)
        if death_signal is not None:
            prctl(PR_SET_PDEATHSIG, int(death_signal))
            if os.getppid() != parent:
                os._exit(1)             # it died before the kernel was asked to tell
        reset_signals()
        argv, environ, numbers, has_stdout, has_stderr = json.loads(_told(channel))
        channel = _make_room(channel, numbers)
        fds = _received(channel, len(numbers) + has_stdout + has_stderr)
        stderr = fds.pop() if has_stderr else None
        stdout = fds.pop() if has_stdout else None
        channel = place(dict(zip(numbers, fds)), channel, stdout, stderr)
        restore_descriptor_limit()
        os.execvpe(argv[0], argv, environ)
    except OSError as error:
        os.write(channel, reason_of(error).encode('utf-8', 'replace'))
    except BaseException as error:
        os.write(channel, (str(error) or repr(error)).encode('utf-8', 'replace'))
    finally:
        os._exit(127)


def _told(channel):
    """Return what the parent says (str), which ends the process when it closes the channel or dies. Not a
    byte more is read: the next one brings descriptors."""
    data = b''
    size = _SIZE.size
    while len(data) < size:
        more = os.read(channel, size - len(data))
        if not more:
            os._exit(0)
        data += more
        if len(data) == _SIZE.size:
            size += _SIZE.unpack(data)[0]
    return data[_SIZE.size:].decode('ascii')


def _make_room(channel, numbers):
    """Leave exactly `numbers` (list of int, ascending) free below a new descriptor of the channel, and return
    that: what is received in their order then has its number already."""
    above = max(numbers + [2]) + 1
    moved = fcntl.fcntl(channel, fcntl.F_DUPFD_CLOEXEC, above)
    os.close(channel)
    for number in set(range(3, above)).difference(numbers):
        os.dup2(moved, number)
    return moved


def _received(channel, count):
    """Return `count` descriptors off the channel."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, channel)
    fds = []
    try:
        while len(fds) < count:
            more, found = wire.receive(sock)
            if not more:
                os._exit(0)
            fds.extend(found)
    finally:
        sock.detach()
    return fds
