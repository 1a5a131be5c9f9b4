"""multibinder: the binder, in the foreground or detached."""

import getopt
import grp
import os
import sys

from multibinder import __version__
from multibinder.commands import fail_in_words
from multibinder.errors import Error, UsageError
from multibinder.server import Server

DEFAULT_LINGER = 30.0
USAGE = """\
usage: multibinder [OPTION...] SOCKET

Holds listening sockets and hands them out over the UNIX socket SOCKET.

  --mode MODE       mode of the control socket, octal [0600; 0660 with --group]
  --group GROUP     group of the control socket
  --linger SECONDS  keep a listener that nobody claims for this long
                    [MULTIBINDER_LINGER, or 30]
  --daemon          detach from the terminal; log to syslog
  --pidfile FILE    with --daemon: write the PID there, and lock it
  -h, --help        print this and exit
  --version         print the version and exit

SIGUSR1: re-execute in place, sockets kept. SIGTERM: stop. See multibinder(8).
"""


class Arguments(object):
    """The words of the command line, unchecked. Raises UsageError for words that are none of ours."""

    def __init__(self, words):
        # argparse would cost a tenth of the memory of a process that runs for years.
        try:
            options, rest = getopt.gnu_getopt(
                words, 'h', ['mode=', 'group=', 'linger=', 'daemon', 'pidfile=', 'help', 'version'])
        except getopt.GetoptError as error:
            raise UsageError('{} (see --help)'.format(error)) from None
        options = {name.lstrip('-'): value for name, value in options}
        self.help = 'help' in options or 'h' in options
        self.version = 'version' in options
        self.mode = options.get('mode')
        self.group = options.get('group')
        self.linger = options.get('linger')
        self.daemon = 'daemon' in options
        self.pidfile = options.get('pidfile')
        if not self.help and not self.version and len(rest) != 1:
            raise UsageError('one SOCKET is expected, not {} (see --help)'.format(len(rest)))
        self.socket = rest[0] if rest else ''


class Settings(object):
    """What the command line and the environment say, checked."""

    def __init__(self, arguments, environment):
        self.path = os.path.abspath(arguments.socket)
        self.group = arguments.group
        try:
            self.mode = int(arguments.mode, 8) if arguments.mode else 0o660 if arguments.group else 0o600
        except ValueError:
            self.mode = -1
        if not 0 <= self.mode <= 0o777:
            raise UsageError('--mode {} is no octal file mode'.format(arguments.mode))
        if self.group is not None:
            try:
                grp.getgrnam(self.group)
            except KeyError:
                raise UsageError('--group {}: no such group'.format(self.group)) from None
        source, text = '--linger', arguments.linger
        if text is None:
            source, text = 'MULTIBINDER_LINGER', environment.get('MULTIBINDER_LINGER') or str(DEFAULT_LINGER)
        try:
            linger = float(text)
        except ValueError:
            raise UsageError('{} {} is no number of seconds'.format(source, text)) from None
        if not 0 <= linger <= 86400 * 365:
            raise UsageError('a linger time of {:g} s is not between 0 and a year'.format(linger))
        self.linger = linger
        if arguments.pidfile and not arguments.daemon:
            raise UsageError('--pidfile goes with --daemon')
        self.pidfile = os.path.abspath(arguments.pidfile) if arguments.pidfile else None


@fail_in_words('multibinder')
def main(argv=None):
    environment = dict(os.environ)
    arguments = Arguments(sys.argv[1:] if argv is None else argv)
    if arguments.help or arguments.version:
        sys.stdout.write(USAGE if arguments.help else 'multibinder {}\n'.format(__version__))
        return 0
    settings = Settings(arguments, environment)
    command = [os.path.abspath(sys.argv[0])] + sys.argv[1:]
    server = Server(settings, command, environment)
    server.start()
    if arguments.daemon:
        from multibinder import detach
        try:
            detach.run(server, settings.pidfile)
        except Error:
            server.stop()       # nothing of us is left when we could not detach
            raise
    else:
        server.serve()
    return 0
