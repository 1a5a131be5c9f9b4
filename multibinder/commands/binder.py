"""multibinder: the binder, in the foreground or detached."""

import argparse
import grp
import os
import sys

from multibinder import __version__
from multibinder.commands import fail_in_words
from multibinder.errors import Error, UsageError
from multibinder.server import Server

DEFAULT_LINGER = 30.0


def parser():
    """Return the command's argument parser."""
    result = argparse.ArgumentParser(
        prog='multibinder', description='Hold listening sockets and hand them out over a UNIX socket.',
        epilog='SIGUSR1: re-execute in place, sockets kept. SIGTERM: stop. See multibinder(8).')
    result.add_argument('socket', metavar='SOCKET', help='path of the control socket')
    result.add_argument('--mode', help="mode of the control socket, octal (default 0600; 0660 with --group)")
    result.add_argument('--group', help='group of the control socket')
    result.add_argument('--linger', type=float, metavar='SECONDS',
                        help='keep a listener that nobody claims for this long (default: MULTIBINDER_LINGER, or 30)')
    result.add_argument('--daemon', action='store_true', help='detach from the terminal; log to syslog')
    result.add_argument('--pidfile', metavar='FILE', help='with --daemon: write the PID there, and lock it')
    result.add_argument('--version', action='version', version='multibinder ' + __version__)
    return result


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
        linger = arguments.linger
        if linger is None:
            text = environment.get('MULTIBINDER_LINGER') or str(DEFAULT_LINGER)
            try:
                linger = float(text)
            except ValueError:
                raise UsageError('MULTIBINDER_LINGER={} is no number of seconds'.format(text)) from None
        if not 0 <= linger <= 86400 * 365:
            raise UsageError('a linger time of {:g} s is not between 0 and a year'.format(linger))
        self.linger = linger
        if arguments.pidfile and not arguments.daemon:
            raise UsageError('--pidfile goes with --daemon')
        self.pidfile = os.path.abspath(arguments.pidfile) if arguments.pidfile else None


@fail_in_words('multibinder')
def main(argv=None):
    environment = dict(os.environ)
    arguments = parser().parse_args(sys.argv[1:] if argv is None else argv)
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
