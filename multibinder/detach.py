"""The binder without systemd: away from the terminal, with a PID file.

Leans on python-daemon and lockfile. Sources: PEP 3143; daemon(7), "SysV daemons".
"""

import os

from multibinder import log
from multibinder.errors import Error, reason_of


def run(server, path):
    """Run a Server that has started, detached; `path` is the PID file's or None. The server's
    descriptors stay open. After a re-exec it is detached already, and the PID in the file is still ours."""
    import daemon
    pidfile = _pidfile(path) if path else None
    if server.resumed:
        log.to_syslog('multibinder')
        try:
            server.serve()
        finally:
            if pidfile is not None and pidfile.i_am_locking():
                pidfile.release()
        return
    context = daemon.DaemonContext(
        files_preserve=server.descriptors(),
        pidfile=pidfile,
        umask=0o022,            # python-daemon sets 0 unless told otherwise
        signal_map={},          # the server has set its own
        detach_process=True)
    try:
        context.open()
    except Exception as error:  # python-daemon and lockfile each have a family of their own
        reason = reason_of(error) if isinstance(error, OSError) else str(error) or error.__class__.__name__
        raise Error('cannot detach{}: {}'.format(' with the PID file ' + path if path else '', reason)) from None
    log.to_syslog('multibinder')
    try:
        server.serve()
    finally:
        context.close()


def _pidfile(path):
    from daemon.pidfile import TimeoutPIDLockFile
    pidfile = TimeoutPIDLockFile(path, 0)
    pid = pidfile.read_pid() if os.path.exists(path) else None
    if pid is None or pid == os.getpid():
        return pidfile
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        pidfile.break_lock()    # its process is dead
        return pidfile
    except OSError:
        pass
    raise Error('cannot lock the PID file {}: process {} in it is alive'.format(path, pid))
