"""multibinderctl adopt and multibinderctl offer: the way to the binder for what already runs, and back."""

import json
import os
import select
import sys
import time

from multibinder import log
from multibinder.client import Client
from multibinder.endpoint import Endpoint
from multibinder.errors import Error, UsageError, reason_of

OFFER_SECONDS = 60.0


def add_verbs(verbs):
    """Add the two verbs to multibinderctl's subparsers."""
    one = verbs.add_parser('adopt', help='take over the listeners of a program that runs',
                           usage='multibinderctl adopt haproxy SOCKET [--hold]\n'
                                 '       multibinderctl adopt pid PID [--hold]')
    kinds = one.add_subparsers(dest='kind', metavar='FROM', prog='multibinderctl adopt')
    kinds.required = True
    kind = kinds.add_parser('haproxy', help='of a haproxy, from its stats socket with `expose-fd listeners`')
    kind.add_argument('source', metavar='SOCKET')
    _add_hold(kind)
    kind = kinds.add_parser('pid', help='of a process and its descendants (Linux 5.6, root)')
    kind.add_argument('source', metavar='PID')
    _add_hold(kind)
    one.set_defaults(run=_adopt, alone=True)
    one = verbs.add_parser('offer', help='hand listeners to a haproxy that is started with -x SOCKET')
    one.add_argument('path', metavar='SOCKET', help='where haproxy is to ask; made for this')
    one.add_argument('endpoint', nargs='*', metavar='ENDPOINT', help='which (default: all that are held)')
    one.add_argument('--for', type=float, default=OFFER_SECONDS, dest='seconds', metavar='SECONDS',
                     help='give up when no haproxy has asked by then (default: {:g})'.format(OFFER_SECONDS))
    one.set_defaults(run=_offer, alone=True)


def _add_hold(parser):
    parser.add_argument('--hold', action='store_true',
                        help='claim them for good, until `release`, and not only as long as the program runs')


def _adopt(arguments):
    from multibinder import adoption    # here, since ctypes would slow every other verb down
    if arguments.kind == 'haproxy':
        source = 'haproxy at ' + arguments.source
        taken = adoption.from_haproxy(arguments.source)
    else:
        if not arguments.source.isdigit() or int(arguments.source) < 1:
            raise UsageError('{!r} is no PID'.format(arguments.source))
        source = 'pid ' + arguments.source
        taken = adoption.from_process(int(arguments.source))
    try:
        for sentence in taken.left:
            print('left: ' + sentence)
        if not taken.listeners:
            raise Error('nothing of {} can be held'.format(source))
        if arguments.hold:
            with Client(arguments.socket) as client:
                outcomes = client.adopt(taken.listeners, lease=False)
        else:
            outcomes = _kept(arguments.socket, taken.listeners)
    finally:
        endpoints = [endpoint for endpoint, _ in taken.listeners]
        taken.close()
    return _report(endpoints, outcomes)


def _report(endpoints, outcomes):
    words = {'adopted': 'adopted', 'held': 'held already'}
    for endpoint, outcome in zip(endpoints, outcomes):
        if outcome in words:
            print('{} {}'.format(endpoint, words[outcome]))
    other = [str(endpoint) for endpoint, outcome in zip(endpoints, outcomes) if outcome == 'other']
    if other:
        raise Error('cannot adopt {}: the binder holds another socket there'.format(', '.join(other)))
    return 0


def _offer(arguments):
    from multibinder import adoption, getsocks
    names = [Endpoint.parse(text).name for text in arguments.endpoint]
    with Client(arguments.socket) as client:
        held = {one['endpoint']: Endpoint.parse(one['endpoint']).with_options(**one['options'])
                for one in client.call('list')}
        missing = [name for name in names if name not in held]
        if missing:
            raise Error('cannot offer {}: the binder does not hold it'.format(', '.join(missing)))
        endpoints = [held[name] for name in names or sorted(held)]
        if not endpoints:
            raise Error('cannot offer anything: the binder holds no listener')
        sockets = client.bind_all(endpoints, lease=True)
        offer = getsocks.Offer(arguments.path, [
            adoption.handed(endpoint, os.dup(sock.fileno())) for endpoint, sock in zip(endpoints, sockets)])
        try:
            print('offered at {}: {}'.format(arguments.path, ', '.join(str(endpoint) for endpoint in endpoints)))
            sys.stdout.flush()
            _serve_one(offer, arguments.seconds)
        finally:
            offer.close()
        # The lease ends here, and a haproxy that is no client has them: somebody must claim them for it.
        _kept(arguments.socket, [(endpoint, sock.fileno()) for endpoint, sock in zip(endpoints, sockets)])
    print('taken; they stay claimed as long as that haproxy uses them')
    return 0


def _serve_one(offer, seconds):
    poll = select.poll()
    poll.register(offer, select.POLLIN)
    deadline = time.monotonic() + seconds
    reason = 'no haproxy has asked for {:g} s'.format(seconds)
    while not offer.taken:
        left = deadline - time.monotonic()
        if left <= 0:
            raise Error('cannot hand over what was offered at {}: {}'.format(offer.path, reason))
        if poll.poll(left * 1000):
            refused = offer.accept()
            if refused:
                reason = refused
                log.warning('not taken from {}: {}'.format(offer.path, refused))


def _kept(path, listeners):
    """Adopt `listeners` (list of (Endpoint, fd)) in a process that stays behind and keeps their claim as
    long as they are used. Returns the outcomes; raises Error."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    if os.fork() == 0:
        try:
            os.close(reader)
            _keeper(path, listeners, writer)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, 'rb') as pipe:
        told = pipe.read()
    if not told:
        raise Error('the process that was to keep the claims died without a word')
    told = json.loads(told.decode('ascii'))
    if 'error' in told:
        raise Error(told['error'])
    return told['outcomes']


def _keeper(path, listeners, writer):
    os.setsid()     # a terminal that closes must not end it
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.chdir('/')
    from multibinder.keeper import Keeper
    keeper = Keeper(path, listeners)
    try:
        told = {'outcomes': [outcome for _, outcome in keeper.adopt()]}
    except Error as error:
        told = {'error': str(error)}
    except OSError as error:
        told = {'error': 'cannot keep the claims: {}'.format(reason_of(error))}
    os.write(writer, json.dumps(told).encode('ascii'))
    # Their copies would keep open what is to end with the program.
    os.closerange(3, 65536)
    keeper.keep()
