"""How listeners get past the end of this process: systemd's fd store, and re-exec in place.

Responsible for what is written for the next process and for reading it back, each descriptor identified
by what is behind it. It decides nothing about claims. Sources: sd_notify(3) (FDSTORE, FDSTOREREMOVE,
FDPOLL), systemd.service(5) (FileDescriptorStoreMax), execve(2).
"""

import fcntl
import json
import os
import re

from multibinder import sdnotify
from multibinder.endpoint import Endpoint
from multibinder.errors import EndpointError, Error, reason_of
from multibinder.listening import read_back
from multibinder.processes import Process

STATE_VARIABLE = 'MULTIBINDER_STATE_FD'
STATE_FORMAT = 1
CONTROL_NAME = 'control'
_NAME_MAX = 255         # systemd's FDNAME_MAX
_NO_NAME = re.compile(r'[^ -9;-~]|%')   # a name is printable ASCII without a colon

# The first word of a name says who claims; after a kill -9 nothing else could tell.
_PLAIN, _LEASED, _PROCESS = 'plain', 'lease', 'process'


def stored_name(listener):
    """Return the name under which a Listener is stored: whether it is claimed for good, or by which
    processes, and the endpoint's printed form as far as it fits."""
    processes = processes_of(listener)
    if listener.plain is not None:
        kind = _PLAIN
    elif processes:
        kind = ' '.join('{} {} {}'.format(_PROCESS, pid, start) for pid, start in processes)
    else:
        kind = _LEASED
    shown = _NO_NAME.sub(lambda found: ''.join('%{:02X}'.format(byte) for byte in os.fsencode(found.group())),
                         listener.endpoint.name)
    name = '{} {}'.format(kind, shown)
    if len(name) <= _NAME_MAX:
        return name
    name = '{} inode {}'.format(kind, listener.socket_id()[1])
    # Of more processes than a name can hold, none must be lost.
    return name if len(name) <= _NAME_MAX else '{} inode {}'.format(_PLAIN, listener.socket_id()[1])


def processes_of(listener):
    """Return the processes that claim a Listener, a list of [pid, start]."""
    return sorted([holder.pid, holder.start] for holder in listener.leases if isinstance(holder, Process))


class Store(object):
    """systemd's fd store of our unit: a copy of every listener, which survives us. Without a service
    manager each method does nothing."""

    def __init__(self):
        self._names = {}        # Listener -> the name that it is stored under
        self.active = bool(os.environ.get('NOTIFY_SOCKET'))

    def keep_control(self, sock):
        """Store the control socket, so that a client that connects while we restart waits."""
        if self.active:
            _store(sock.fileno(), CONTROL_NAME)

    def forget_control(self):
        """Take every control socket out of the store."""
        if self.active:
            sdnotify.notify('FDSTOREREMOVE=1', 'FDNAME=' + CONTROL_NAME)

    def keep(self, listener, force=False):
        """Store a listener, or store it under its new name after its claims have changed."""
        if not self.active:
            return
        name = stored_name(listener)
        before = self._names.get(listener)
        if before == name and not force:
            return
        if before is not None and before != name:
            # The manager drops a second copy of a socket that it has, so the old one goes first.
            sdnotify.notify('FDSTOREREMOVE=1', 'FDNAME=' + before)
        if _store(listener.sock.fileno(), name):
            self._names[listener] = name

    def forget(self, listener):
        """Take a listener out of the store. systemd before 236 knows no removal, but it drops what shows
        POLLHUP, as a listener does that was taken out of LISTEN."""
        name = self._names.pop(listener, None)
        if name is not None:
            sdnotify.notify('FDSTOREREMOVE=1', 'FDNAME=' + name)

    def assume(self, listener, name):
        """Note that the manager gave us a listener under `name`, and so still stores it."""
        if self.active:
            self._names[listener] = name
            self.keep(listener)

    def name_of(self, listener):
        """Return the name that a listener is stored under, or None (for the next process of a re-exec)."""
        return self._names.get(listener)


def _store(fileno, name):
    # FDPOLL=0: a listener that somebody shut down shows POLLHUP, and we heal it; it must stay stored.
    return sdnotify.notify('FDSTORE=1', 'FDNAME=' + name, 'FDPOLL=0', fds=[fileno])


def discard_stored(fileno, name):
    """Close a stored descriptor that is of no use, and take it out of the store."""
    os.close(fileno)
    sdnotify.notify('FDSTOREREMOVE=1', 'FDNAME=' + name)


def identify(fileno, name):
    """Return (Endpoint, whether it was claimed for good, the processes that claimed it as (pid, start)) of
    a stored descriptor. What is behind it says what it is; the name adds only the claims. Raises
    EndpointError."""
    processes = []
    words = name.split(' ')
    while len(words) > 2 and words[0] == _PROCESS and words[1].isdigit() and words[2].isdigit():
        processes.append((int(words[1]), int(words[2])))
        words = words[3:]
    return read_back(fileno), words[0] == _PLAIN, processes


def endpoint_of(params, fileno):
    """Return the Endpoint that the process before us had for a descriptor (int, borrowed), or, where this
    version cannot read its `params`, what the descriptor itself tells. Raises EndpointError."""
    try:
        return Endpoint.from_params(params)
    except EndpointError:
        return read_back(fileno)


def write_state(state):
    """Write a state (JSON's kinds of values) where only the next process finds it. Returns the
    descriptor, the caller's, to be inherited. Raises OSError."""
    fileno = _nameless_file()
    try:
        state['format'] = STATE_FORMAT
        data = json.dumps(state).encode('ascii')
        while data:     # write(2) may take less than all of it
            data = data[os.write(fileno, data):]
        return fileno
    except BaseException:
        os.close(fileno)
        raise


def _nameless_file():
    in_memory = getattr(os, 'memfd_create', None)       # Python 3.8
    if in_memory is not None:
        return in_memory('multibinder-state')
    for directory in ('/run', '/dev/shm', '/tmp'):
        try:
            return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            reason = error
    raise reason


def read_state():
    """Return the state that the process before us wrote (dict), or None when there is none, or none
    that this version understands."""
    number = os.environ.pop(STATE_VARIABLE, None)
    if number is None:
        return None
    try:
        with os.fdopen(int(number), 'rb') as file:
            file.seek(0)
            state = json.loads(file.read().decode('ascii'))
        return state if isinstance(state, dict) and state.get('format') == STATE_FORMAT else None
    except (OSError, ValueError):
        return None


def adoptable(fileno, endpoint):
    """Raise EndpointError unless the descriptor is a stream socket bound to that endpoint."""
    found = read_back(fileno)
    if found != endpoint:
        raise EndpointError('descriptor {} is bound to {}, not to {}'.format(fileno, found, endpoint))


def inherit(filenos, inheritable=True):
    """Set descriptors to stay open over execve (or no longer)."""
    for fileno in filenos:
        flags = fcntl.fcntl(fileno, fcntl.F_GETFD)
        flags = flags & ~fcntl.FD_CLOEXEC if inheritable else flags | fcntl.FD_CLOEXEC
        fcntl.fcntl(fileno, fcntl.F_SETFD, flags)


def execute(command, environment, state, filenos):
    """Become `command` (list of str) with `environment` (dict), which finds `state` and the descriptors
    `filenos` under the same numbers. Returns only by raising Error; all is as before then."""
    fileno = None
    try:
        fileno = write_state(state)
        environment = dict(environment)
        for passed_at_start in ('LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES'):
            # Our PID stays, so the next process would take these numbers for its own a second time.
            environment.pop(passed_at_start, None)
        environment[STATE_VARIABLE] = str(fileno)
        inherit(list(filenos) + [fileno])
        os.execve(command[0], command, environment)
    except OSError as error:
        if fileno is not None:
            os.close(fileno)
        inherit(filenos, inheritable=False)
        raise Error('cannot re-execute {}: {}'.format(command[0], reason_of(error))) from None
