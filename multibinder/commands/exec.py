"""multibinder-exec: claims listeners and becomes a command that accepts on them."""

import argparse
import os
import sys

from multibinder import __version__, client
from multibinder.commands import fail_in_words
from multibinder.endpoint import Endpoint
from multibinder.errors import Error, UsageError, reason_of
from multibinder.process import place, reset_signals
from multibinder.sdnotify import LISTEN_FDS_START

_YES = {'': True, 'yes': True, 'true': True, '1': True, 'no': False, 'false': False, '0': False}


class _Listener(argparse.Action):
    """Collects --tcp, --unix and --name in their order: a name is that of the listener before it."""

    def __call__(self, parser, namespace, value, option_string=None):
        listeners = namespace.listeners = list(namespace.listeners or [])
        if self.dest != 'name':
            listeners.append((endpoint_of(self.dest, value), None))
        elif not listeners or listeners[-1][1] is not None:
            parser.error('--name {} has no --tcp or --unix before it'.format(value))
        elif not value or ':' in value or not value.isprintable() or len(value) > 255:
            parser.error('--name {!a} is no name that LISTEN_FDNAMES could carry'.format(value))
        else:
            listeners[-1] = (listeners[-1][0], value)


def parser():
    """Return the command's argument parser."""
    result = argparse.ArgumentParser(
        prog='multibinder-exec', usage='%(prog)s [option ...] {--tcp ADDRESS:PORT | --unix PATH} [...] -- COMMAND [ARGUMENT ...]',
        description='Claim listeners of the binder and become COMMAND, which accepts on them.',
        epilog='COMMAND finds the listeners as descriptors from 3 on, in the order given; as LISTEN_FDS, LISTEN_PID '
               'and LISTEN_FDNAMES; as NGINX; and as {NAME} in its arguments. See multibinder-exec(8).')
    result.add_argument('--tcp', action=_Listener, metavar='ADDRESS:PORT[,OPTION=VALUE...]',
                        help='a TCP listener; options: backlog, v6only, freebind, transparent, interface')
    result.add_argument('--unix', action=_Listener, metavar='PATH[,OPTION=VALUE...]',
                        help='a UNIX listener, @NAME for an abstract one; options: backlog, mode, user, group')
    result.add_argument('--name', action=_Listener, metavar='NAME',
                        help='name of the listener before it (default: listener1, listener2, ...)')
    result.add_argument('--hold', action='store_true',
                        help='claim for good, not only for as long as COMMAND runs (for one that puts itself into the background)')
    result.add_argument('--socket', metavar='PATH',
                        help='the control socket (default: MULTIBINDER_SOCK, or that of /etc/default/multibinder)')
    result.add_argument('--version', action='version', version='multibinder-exec ' + __version__)
    result.set_defaults(listeners=None)
    return result


def endpoint_of(kind, text):
    """Return the Endpoint that an option's value names: ADDRESS:PORT or PATH, and options behind commas.
    Raises UsageError."""
    words = text.split(',')
    options = {}
    try:
        for word in words[1:]:
            option, _, value = word.partition('=')
            if option in ('v6only', 'freebind', 'transparent') and value in _YES:
                options[option] = _YES[value]
            elif option == 'backlog' and value.isdigit():
                options[option] = int(value)
            else:
                options[option] = value
        if kind == 'unix':
            return Endpoint.unix(words[0], **options)
        address, colon, port = words[0].rpartition(':')
        if not colon:
            raise UsageError('--tcp {}: write ADDRESS:PORT'.format(text))
        return Endpoint.tcp(address, port, **options)
    except UsageError:
        raise
    except Error as error:
        raise UsageError('--{} {}: {}'.format(kind, text, error)) from None


@fail_in_words('multibinder-exec')
def main(argv=None):
    words = sys.argv[1:] if argv is None else argv
    cut = words.index('--') if '--' in words else len(words)
    arguments = parser().parse_args(words[:cut])
    command = words[cut + 1:]
    if not command:
        raise UsageError('no command: write it behind --')
    if not arguments.listeners:
        raise UsageError('nothing to claim: give --tcp or --unix')
    names = [name or 'listener{}'.format(index + 1) for index, (_, name) in enumerate(arguments.listeners)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError('two listeners have the name {}'.format(twice[0]))
    with client.Client(arguments.socket) as binder:
        sockets = binder.bind_all([endpoint for endpoint, _ in arguments.listeners],
                                  lease=False if arguments.hold else 'process')
    become(command, names, [sock.detach() for sock in sockets], dict(os.environ))
    return 0


def become(command, names, filenos, environment):
    """Execute `command` (list of str) with the descriptors `filenos` as 3, 4, … and nothing else beyond
    stderr. Returns only by raising Error."""
    numbers = list(range(LISTEN_FDS_START, LISTEN_FDS_START + len(filenos)))
    for name, number in zip(names, numbers):
        command = [word.replace('{' + name + '}', str(number)) for word in command]
    environment.update(
        LISTEN_FDS=str(len(filenos)), LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES=':'.join(names),
        NGINX=''.join('{};'.format(number) for number in numbers))      # nginx's core/nginx.c, NGINX_VAR
    place(dict(zip(numbers, filenos)))
    # Python ignores SIGPIPE, and who started us may have blocked or ignored more.
    reset_signals()
    sys.stdout.flush()
    try:
        os.execvpe(command[0], command, environment)
    except OSError as error:
        raise Error('cannot execute {}: {}'.format(command[0], reason_of(error))) from None
