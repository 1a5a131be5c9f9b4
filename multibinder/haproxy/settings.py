"""What the environment says to a wrapper. Responsible for reading and checking these values."""

import os

from multibinder.defaults import defaults_file, read_defaults
from multibinder.errors import UsageError


class Settings(object):
    """Durations in seconds (float), numbers (int), from the environment:

    MULTIBINDER_RENDER_TIMEOUT (20) for all templates of one launch; MULTIBINDER_BINDER_TIMEOUT (5) for the
    binder to answer a claim; MULTIBINDER_START_TIMEOUT (60) from haproxy's launch to the proof that it
    serves; MULTIBINDER_MAX_OLD and MULTIBINDER_OLD_AGE bound the generations that drain, by number and by
    age, 0 (the default) for no bound; MULTIBINDER_ON_STOP is 'wait' for the drain or 'leave'.
    """

    def __init__(self, environ=None):
        """Raises UsageError for a value that is none."""
        environ = os.environ if environ is None else environ
        self.render_timeout = _number(environ, 'MULTIBINDER_RENDER_TIMEOUT', 20.0)
        self.binder_timeout = _number(environ, 'MULTIBINDER_BINDER_TIMEOUT', 5.0)
        self.start_timeout = _number(environ, 'MULTIBINDER_START_TIMEOUT', 60.0)
        self.max_old = int(_number(environ, 'MULTIBINDER_MAX_OLD', 0))
        self.old_age = _number(environ, 'MULTIBINDER_OLD_AGE', 0.0)
        on_stop = environ.get('MULTIBINDER_ON_STOP') or 'wait'
        if on_stop not in ('wait', 'leave'):
            raise UsageError("MULTIBINDER_ON_STOP must be 'wait' or 'leave', not {!r}".format(on_stop))
        self.leave_on_stop = on_stop == 'leave'


class SocketPath(object):
    """Where the binder's control socket is, now.

    The environment of a running process stays as it was when it started; a path that dpkg-reconfigure
    writes to the defaults file is to take effect by a reload, though. So the file is read again, and
    followed as long as the environment had its path from there.
    """

    def __init__(self, initial, file=None):
        """`initial` (str) is the path of the environment; `file` the defaults file, by default
        MULTIBINDER_DEFAULTS or /etc/default/multibinder."""
        self._initial = initial
        self._file = file or defaults_file()
        self._follows = read_defaults(self._file).get('MULTIBINDER_SOCK', initial) == initial

    def now(self):
        """Return the path (str)."""
        if not self._follows:
            return self._initial
        # Emptied in the file means no binder; that is decided at a start, not in a reload.
        return read_defaults(self._file).get('MULTIBINDER_SOCK') or self._initial


def _number(environ, name, default):
    text = environ.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float('inf'):
        raise UsageError('{} must be a number from 0 on, not {!r}'.format(name, text))
    return value
