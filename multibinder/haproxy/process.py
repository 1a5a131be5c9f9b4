"""Starting another program, with exactly the descriptors and the state that it is meant to have.

Responsible for fork, exec and what lies between them. Not for the life of the child afterwards: whoever
spawns reaps. The subprocess module is not used: it cannot place descriptors, and it costs a long-lived
wrapper a megabyte.
"""

import errno
import fcntl
import os
import resource
import select
import signal
import time

from multibinder.errors import HaproxyError, reason_of
from multibinder.process import open_fds, place, reset_signals

PR_SET_PDEATHSIG = 1            # prctl(2), linux/prctl.h
PR_SET_CHILD_SUBREAPER = 36

# Said by a service manager to its service, not to what that service starts; and haproxy's own notes to
# itself over a re-exec, which would make a new one take itself for an old one.
_NOT_PASSED_ON = ('NOTIFY_SOCKET', 'LISTEN_FDS', 'LISTEN_PID', 'LISTEN_FDNAMES', 'WATCHDOG_USEC', 'WATCHDOG_PID',
                  'HAPROXY_MWORKER_REEXEC', 'HAPROXY_MWORKER_WAIT_ONLY', 'HAPROXY_PROCESSES')

# The limit of descriptors as it was before anybody raised it: a child computes its own limits from it.
_inherited_limit = resource.getrlimit(resource.RLIMIT_NOFILE)


def raise_descriptor_limit():
    """Raise this process's soft limit of descriptors to the hard one; children get the old one back."""
    soft, hard = _inherited_limit
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        pass        # the soft limit stays, and a claim that exceeds it says so


def restore_descriptor_limit():
    """Give this process the limit of descriptors that it was started with: it is about to become haproxy."""
    resource.setrlimit(resource.RLIMIT_NOFILE, _inherited_limit)


def close_on_exec_all():
    """Make every descriptor above stderr close-on-exec: those that we inherited are nobody else's."""
    for fd in open_fds():
        if fd > 2:
            _set_close_on_exec(fd)


def adopt_orphans():
    """Become the parent of grandchildren whose parent dies: workers of a haproxy that was killed."""
    _prctl()(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def spawn(argv, fds=(), stderr=None, stdout=None, death_signal=None, group=False, environ=None):
    """Start a program and return its PID (int).

    `argv` is a list of str, whose first is looked up in PATH. `fds` maps the number in the child (from 3
    on) to the descriptor here; apart from these and 0, 1, 2 the child has none. `stdout` and `stderr`
    replace those two. `death_signal` is sent by the kernel to the child when this process dies;
    `group` gives it a process group of its own, out of reach of a terminal's Ctrl-C. All descriptors
    stay the caller's. Signal mask and dispositions of the child are the default ones: haproxy inherits
    both. Raises HaproxyError when the program cannot be run.
    """
    fds = dict(fds)
    parent = os.getpid()
    environ = environment() if environ is None else environ
    reader, writer = os.pipe()      # close-on-exec: its end without a byte says that exec succeeded
    try:
        pid = os.fork()
    except OSError:
        os.close(reader)
        os.close(writer)
        raise
    if pid == 0:
        try:
            os.close(reader)
            writer = place(fds, writer, stdout, stderr)
            if group:
                os.setpgid(0, 0)
            restore_descriptor_limit()
            if death_signal is not None:
                die_with(parent, death_signal)
            reset_signals()
            os.execvpe(argv[0], argv, environ)
        except OSError as error:
            os.write(writer, str(error.errno or 0).encode())
        except BaseException:
            os.write(writer, b'0')
        finally:
            os._exit(127)
    os.close(writer)
    if group:
        try:
            os.setpgid(pid, pid)    # the child does the same; whoever is first, it is done on return
        except OSError:
            pass
    with os.fdopen(reader, 'rb') as pipe:
        failed = pipe.read()
    if failed:
        os.waitpid(pid, 0)
        code = int(failed)
        raise HaproxyError('cannot run {}: {}'.format(argv[0], os.strerror(code) if code else 'no reason known'))
    return pid


def die_with(parent, death_signal=signal.SIGKILL):
    """In a forked child: let the kernel send `death_signal` when the process `parent` dies."""
    _prctl()(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)         # it died before the kernel was asked to tell


def environment():
    """Return what a child's environment (dict) is: ours, without what was meant for us only."""
    return {name: value for name, value in os.environ.items() if name not in _NOT_PASSED_ON}


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
            pid = spawn(argv, fds, stdout=writer, stderr=writer, death_signal=signal.SIGKILL)
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


def exit_status(wait_status):
    """Return a wait(2) status as an exit status (int), negative for the signal that ended it."""
    return -os.WTERMSIG(wait_status) if os.WIFSIGNALED(wait_status) else os.WEXITSTATUS(wait_status)


def describe_exit(status):
    """Return how a process ended, in words (str)."""
    if status >= 0:
        return 'exit status {}'.format(status)
    try:
        return 'killed by {}'.format(signal.Signals(-status).name)
    except ValueError:
        return 'killed by signal {}'.format(-status)


def children_of(pid):
    """Return the PIDs (list of int) of the present children of a process, as proc(5) shows them."""
    found = []
    try:
        for task in os.listdir('/proc/{}/task'.format(pid)):
            with open('/proc/{}/task/{}/children'.format(pid, task)) as listing:
                found.extend(int(word) for word in listing.read().split())
        return found
    except FileNotFoundError:
        pass            # a kernel without CONFIG_PROC_CHILDREN, or the process is gone
    except OSError:
        return []
    for name in os.listdir('/proc'):
        if name.isdigit():
            try:
                with open('/proc/{}/stat'.format(name), errors='replace') as stat:
                    # The program's name may hold spaces and brackets: count from behind it.
                    if int(stat.read().rpartition(')')[2].split()[1]) == pid:
                        found.append(int(name))
            except (OSError, IndexError, ValueError):
                continue
    return found


def find_program(word):
    """Return the path of a program as exec would find it, or None."""
    if '/' in word:
        return word if os.access(word, os.X_OK) else None
    for directory in os.environ.get('PATH', os.defpath).split(os.pathsep):
        path = os.path.join(directory or '.', word)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def _prctl():
    """Return prctl(2). Called in forked children: ctypes would cost a wrapper half a megabyte for good."""
    import ctypes
    return ctypes.CDLL(None, use_errno=True).prctl


def _set_close_on_exec(fd):
    try:
        fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.fcntl(fd, fcntl.F_GETFD) | fcntl.FD_CLOEXEC)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise HaproxyError('cannot prepare descriptor {}: {}'.format(fd, reason_of(error)))
