"""What a supervisor has to know and to set of processes: limits, the environment, children, exit statuses.

Responsible for asking the kernel, one fact at a time. Starting a program is `child`'s.
"""

import errno
import fcntl
import os
import resource
import signal

from multibinder.errors import HaproxyError, reason_of
from multibinder.process import open_fds

PR_SET_CHILD_SUBREAPER = 36     # prctl(2), linux/prctl.h

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
    prctl(PR_SET_CHILD_SUBREAPER, 1)


def environment():
    """Return what a child's environment (dict) is: ours, without what was meant for us only."""
    return {name: value for name, value in os.environ.items() if name not in _NOT_PASSED_ON}


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


def prctl(option, value):
    """Call prctl(2). Above all for forked children: ctypes costs a wrapper half a megabyte for good."""
    import ctypes
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _set_close_on_exec(fd):
    try:
        fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.fcntl(fd, fcntl.F_GETFD) | fcntl.FD_CLOEXEC)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise HaproxyError('cannot prepare descriptor {}: {}'.format(fd, reason_of(error)))
