"""Lines for the operator: to stderr, where systemd's journal reads them, or to syslog once detached.

Responsible for where a line goes and for its priority; what it says is its caller's. A line is never
lost for its bytes: what stderr cannot encode is written with backslashes.
"""

import os
import select
import sys

# sd-daemon(3): the priority in front of a line, for the journal only.
_PREFIXES = {'info': '<6>', 'warning': '<4>', 'error': '<3>'}

_PATIENCE_MS = 20       # for a reader that is only slow; a message is lost then

_syslog = None
_lost = 0


def info(text):
    """Log what happened."""
    _write('info', text)


def warning(text):
    """Log what the operator should look at, though the work goes on."""
    _write('warning', text)


def error(text):
    """Log what failed."""
    _write('error', text)


def to_syslog(ident):
    """Send all further lines to syslog(3) under `ident` (str): for a daemon that has no stderr."""
    global _syslog
    import syslog
    syslog.openlog(ident, syslog.LOG_PID, syslog.LOG_DAEMON)
    _syslog = syslog


def for_journal():
    """Tell whether stderr is a stream to systemd's journal, which reads a priority in front of lines."""
    stream = os.environ.get('JOURNAL_STREAM')
    if not stream:
        return False
    try:
        found = os.fstat(2)
    except OSError:
        return False
    return stream == '{}:{}'.format(found.st_dev, found.st_ino)


def _write(priority, text):
    if _syslog is not None:
        level = {'info': _syslog.LOG_INFO, 'warning': _syslog.LOG_WARNING, 'error': _syslog.LOG_ERR}[priority]
        for line in text.split('\n'):
            _syslog.syslog(level, line)
        return
    prefix = _PREFIXES[priority] if for_journal() else ''
    _emit(''.join(prefix + line + '\n' for line in text.split('\n')))


def _emit(data):
    global _lost
    if _lost:
        data = '({} messages before this one were lost: nobody read them in time)\n'.format(_lost) + data
    encoded = data.encode(getattr(sys.stderr, 'encoding', None) or 'utf-8', 'backslashreplace')
    try:
        poll = select.poll()
        poll.register(2, select.POLLOUT)
        # Who does not read our words must not keep our clients waiting.
        if not poll.poll(_PATIENCE_MS):
            _lost += 1
            return
        # One write a message: lines of processes that share this stderr are not mixed.
        os.write(2, encoded)
        _lost = 0
    except OSError:
        pass    # nobody reads any more, and there is nobody left to tell
