"""multibinder-haproxy-wrapper: the supervisor of one haproxy instance."""

import os
import signal
import sys

from multibinder import __version__, log
from multibinder.client import socket_path
from multibinder.commands import fail_in_words
from multibinder.errors import HaproxyError, UsageError, reason_of
from multibinder.haproxy.command import Command
from multibinder.haproxy.instance import RuntimeDirectory

NAME = 'multibinder-haproxy-wrapper'
USAGE = """\
usage: {name} HAPROXY [OPTION...] -f TEMPLATE [-p PIDFILE]
       {name} --wait-reload NAME [PID]
       {name} --help | --version

Runs haproxy on listeners of the binder and supervises it. TEMPLATE is
NAME.cfg.tmpl, NAME.cfg.erb, NAME.cfg.mb, or NAME.cfg beside which one of these
lies; the rendered config is NAME.cfg. A NAME.cfg written by hand, with no
template beside it, is run as it is. Every other option is haproxy's own.

  --wait-reload NAME  wait until no reload of the instance NAME is under way,
                      print why the last one failed, and return its status;
                      for systemd before 232, which cannot do it, ask the
                      wrapper PID for the reload first
  --help              print this and exit
  --version           print the version and exit

signals:
  SIGUSR2, SIGHUP            reload: a new generation takes over, or nothing changes
  SIGTERM, SIGINT, SIGUSR1   let haproxy finish, and end; twice: end at once

environment:
  MULTIBINDER_SOCK            control socket of the binder [/run/multibinder.sock];
                              empty: haproxy binds its addresses itself
  MULTIBINDER_INSTANCE        name of the instance [that of the config]
  MULTIBINDER_RUNTIME_DIR     its sockets [/run/haproxy-multi-NAME]
  MULTIBINDER_ON_STOP         wait: end when haproxy has finished [wait];
                              leave: end at once, haproxy finishes by itself
  MULTIBINDER_MAX_OLD         most generations that may still finish [0: any number]
  MULTIBINDER_OLD_AGE         seconds they may take for it [0: any time]
  MULTIBINDER_RENDER_TIMEOUT  seconds for a template [20]
  MULTIBINDER_BINDER_TIMEOUT  seconds for the binder to answer a claim [5]
  MULTIBINDER_START_TIMEOUT   seconds for haproxy to get ready [60]

exit status: 0 done, 1 refused or failed, 2 wrong usage, 3 haproxy has ended by
itself, otherwise haproxy's own (128 and more: killed by a signal)
""".format(name=NAME)


@fail_in_words(NAME)
def main(argv=None):
    """Run the command with `argv` (list of str, sys.argv by default); return the exit status."""
    words = sys.argv[1:] if argv is None else argv
    # Read by hand: argparse would cost the wrapper a tenth of its memory, and the words are haproxy's.
    if not words or words[0] in ('--help', '-h'):
        sys.stdout.write(USAGE)
        return 0 if words else 2
    if words[0] == '--version':
        sys.stdout.write('{} {}\n'.format(NAME, __version__))
        return 0
    if words[0] == '--wait-reload':
        if len(words) not in (2, 3) or not (words + ['0'])[2].isdigit():
            raise UsageError('--wait-reload needs the name of one instance, and may have the PID of its wrapper')
        return _wait_reload(*words[1:])
    if words[0].startswith('-'):
        raise UsageError('unknown option {}: haproxy and its options are expected (see --help)'.format(words[0]))
    command = Command(words)
    from multibinder.haproxy.settings import Settings
    from multibinder.haproxy.supervisor import supervise
    return supervise(command, Settings(), socket_path())


def _wait_reload(name, pid=None):
    from multibinder.haproxy.control import wait_for_reload
    if pid is not None and 'INVOCATION_ID' not in os.environ:
        # The unit's first ExecReload, whose "+" systemd before 231 does not know, has not asked. With 231,
        # which does not set the variable yet, it is asked for twice, which does no harm.
        try:
            os.kill(int(pid), signal.SIGUSR2)
        except OSError as error:
            raise HaproxyError('cannot ask the wrapper of {} (PID {}) for a reload: {}'.format(
                name, pid, reason_of(error)))
    status, reason = wait_for_reload(RuntimeDirectory(name).file('control'), name)
    if status:
        log.error(reason)
    return status
