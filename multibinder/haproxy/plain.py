"""An instance whose config is written by hand: no template, and nobody but its owner writes the file.

haproxy binds its addresses itself and hands them on as it does in its own reloads (see
`multibinder.getsocks`), but through us: a generation is started with -x and takes from here what the
former one has and what the binder holds; once it serves, the binder holds what it accepts on. So a
listener outlives all of its haproxy's processes, as one out of a template does.

Responsible for the launch of such a generation, for there being no second socket at an address that
nobody accepts on, and for saying what cannot be held. Everything is compared by inode: haproxy takes what
matches its `bind` line, closes the rest in silence, and binds beside it what it misses.
"""

import array
import contextlib
import os
import socket
import struct

from multibinder import adoption, getsocks, keeper, log
from multibinder.client import Client
from multibinder.endpoint import Endpoint
from multibinder.errors import Error, HaproxyError, reason_of
from multibinder.haproxy.generation import Generation
from multibinder.haproxy.layout import Layout
from multibinder.haproxy.loop import wait_for
from multibinder.haproxy.proof import CommandLine, worker_path
from multibinder.listening import SO_DOMAIN, listen, queue_of

ASK_SECONDS = 5.0           # for a haproxy that serves to name its listeners
DRAIN_SECONDS = 1.0         # for the former generation to accept what waits for it
TICK = 0.01                 # between two looks whether it has: nothing tells
SO_ATTACH_REUSEPORT_CBPF = 51       # asm-generic/socket.h, Linux 4.6

# linux/bpf_common.h and linux/filter.h: load a random number, modulo, add, return.
_LOAD, _MODULO, _ADD, _RETURN, _RETURN_A = 0x20, 0x94, 0x04, 0x06, 0x16
_RANDOM = 0xfffff000 + 56           # SKF_AD_OFF + SKF_AD_RANDOM

# What this wrapper, of one instance, has learned and said.
_unmatched = set()          # endpoints that haproxy does not take over
_said = set()


def launch(loop, number, version, child, command, listeners, runtime, prove, left):
    """Let `child` (a Child, the caller's) become generation `number` of a plain config: a generator that a
    loop drives. Returns (Generation,
    Claim or None, unheld): the last, a list of str, says what the binder cannot hold.

    `prove(generation)` is a generator that waits until it serves; `left` as in attempt.launch. Raises an
    Error, and then all is as it was before.
    """
    if not version.has_master:
        raise HaproxyError('haproxy {} hands no listeners on, as 1.8 and later do: write a template, {}.tmpl'.format(
            version.text, command.configs[0]))
    with contextlib.ExitStack() as always, contextlib.ExitStack() as undo:
        former = _former_listeners(runtime, number - 1)
        always.callback(_close_all, former)
        offered = [getsocks.Handed(os.dup(one.fd), one.namespace, one.interface, one.options) for one in former]
        _unlink(runtime.file('offer'))      # of a wrapper that was killed
        offer = getsocks.Offer(runtime.file('offer'), offered)
        always.callback(offer.close)
        claim = borrowed = None
        if listeners is not None:
            # One that is held is asked for again, if only to see that the binder is there.
            claim = yield from listeners.claim(list(listeners.held)[:1])
            undo.callback(listeners.abandon, claim)
            borrowed = Client(claim.client.path)
            always.callback(borrowed.close)
            known = {_inode(one.fd) for one in offered}
            # haproxy up to 2.2 keeps to itself what it has paused.
            offered.extend(adoption.handed(endpoint, os.dup(sock.fileno()))
                           for endpoint, sock in listeners.held.items() if _inode(sock.fileno()) not in known)
            offered.extend(_from_binder(borrowed, known))
        loop.watch(offer, lambda: _serve(offer))
        always.callback(loop.forget, offer)

        generation = _start(loop, number, version, child, command, runtime, ['-x', offer.path] if offered else [])
        try:
            yield from prove(generation)
            found = _handed_out(runtime, number)
            always.callback(_close_all, found)
            if former:
                yield from _move_clients(former, found)
        except GeneratorExit:
            generation.retire()
            left(generation)
            raise
        except BaseException:
            generation.abandon()
            raise
        undo.pop_all()      # it serves: from here on nothing may fail
        unheld = []
        if claim is not None:
            unheld = _hold(listeners, claim, borrowed, found,
                           {_inode(one.fd) for one in offered} if offer.taken else set())
        for sentence in unheld:
            if sentence not in _said:
                _said.add(sentence)
                log.warning(sentence)
        return generation, claim, unheld


def _former_listeners(runtime, number):
    """Return what the former generation accepts on (list of Handed, the caller's), if there is one."""
    path = worker_path(runtime, number)
    if not os.path.exists(path):
        return []
    try:
        return _handed_out(runtime, number)
    except Error as error:
        log.warning('the generation that serves does not hand on its listeners: {}'.format(error))
        return []


def _from_binder(client, known):
    """Return the listeners (list of Handed, the caller's) that the binder holds and nobody leases, but
    for those whose inodes are `known`. They are leased on `client`, and linger again when it is closed."""
    wanted = {}
    for one in client.call('list'):
        free = all(claim['kind'] == 'plain' or claim['kind'] == 'process' and keeper.is_keeper(claim['pid'])
                   for claim in one['claims'])
        if free and one['inode'] not in known:
            wanted[Endpoint.parse(one['endpoint'])] = one
    handed = []
    endpoints = list(wanted)
    for endpoint, sock in zip(endpoints, client.bind_all(endpoints, lease=True) if endpoints else ()):
        if _inode(sock.fileno()) == wanted[endpoint]['inode']:
            handed.append(adoption.handed(endpoint.with_options(**wanted[endpoint]['options']), sock.detach()))
        else:
            sock.close()
            client.release([endpoint], lease=True)      # its time was over meanwhile: nobody wants this new one
    return handed


def _start(loop, number, version, child, command, runtime, extra):
    command_line = CommandLine(version, runtime, number, exposes=True)
    layout = Layout(0)
    try:
        words = command.supervised(version, {}, extra + command_line.words(layout.ours))
        return Generation(loop, number, version, child, words, layout.place((), command_line.fds()), command_line)
    except BaseException:
        command_line.close()
        raise


def _serve(offer):
    refused = offer.accept()
    if refused:
        log.warning('haproxy asked for its listeners and did not get them: {}'.format(refused))


def _handed_out(runtime, number):
    """Return what a generation that serves accepts on (list of Handed, the caller's). Raises Error."""
    try:
        found = getsocks.ask(worker_path(runtime, number), ASK_SECONDS)
    except getsocks.HandsOutNone:
        return []
    # Up to 2.2 it hands out what it has inherited, too: our own sockets.
    ours = [one for one in found if _name(one.fd).startswith(runtime.file(''))]
    _close_all(ours)
    return [one for one in found if one not in ours]


def _move_clients(former, found):
    """Where haproxy has bound a second socket beside the former generation's: let every new connection
    come to the new one, and the former generation accept what waits at its own, before it is ended."""
    old, new = _by_address(former), _by_address(found)
    leaving = []
    for address in set(old) & set(new):
        if not {_inode(fd) for fd in old[address]} & {_inode(fd) for fd in new[address]}:
            if _direct(old[address], len(new[address])):
                leaving.extend(old[address])
    for _ in range(int(DRAIN_SECONDS / TICK) if leaving else 0):
        yield from wait_for(lambda: False, TICK)
        if not any(_waiting(fd) for fd in leaving):
            return


def _direct(old, count):
    """Let the kernel give the connections of a group of SO_REUSEPORT sockets to its `count` newest ones,
    which stand behind the `old` (descriptors). Returns whether it does. Once the old ones have gone the
    numbers mean nothing to it, and it shares them out as ever."""
    if count == 1:
        program = [(_RETURN, len(old))]
    else:
        program = [(_LOAD, _RANDOM), (_MODULO, count), (_ADD, len(old)), (_RETURN_A, 0)]
    code = array.array('B', b''.join(struct.pack('HBBI', operation, 0, 0, value) for operation, value in program))
    with _socket_of(old[0]) as sock:
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF,
                            struct.pack('HP', len(program), code.buffer_info()[0]))
            return True
        except OSError as error:
            log.warning('cannot direct clients to the new socket at {}: {}'.format(
                sock.getsockname(), reason_of(error)))
            return False


def _waiting(fd):
    with _socket_of(fd) as sock:
        return bool(queue_of(sock)[0])


def _hold(listeners, claim, borrowed, found, taken):
    """Let the binder hold what haproxy accepts on, and nothing else on behalf of this instance: the
    claim's sockets are what the instance holds from here on. `taken` are the inodes (set) of what haproxy
    was given. Returns what cannot be held, a list of str.

    The binder may go away meanwhile: what is in the claim is given to it when it comes back."""
    claim.sockets = {}
    unheld = []
    groups = {}         # Endpoint -> descriptors
    for one in found:
        endpoint, reason = adoption.holdable(one.fd, one.namespace)
        if endpoint is not None:
            groups.setdefault(adoption.described(endpoint, one.options), []).append(one.fd)
        elif reason is not None:
            unheld.append('{}: it is handed on in a reload, and lost in a restart'.format(reason))
    try:
        inodes = {one['endpoint']: one['inode'] for one in claim.client.call('list')}
        borrowed.close()
    except Error:
        inodes = {}
    missed = []
    for endpoint, fds in groups.items():
        held = inodes.get(endpoint.name)
        same = [fd for fd in fds if _inode(fd) == held]
        if held is not None and not same:
            missed.append(endpoint)
            if held in taken:
                _unmatched.add(endpoint)
        if any(_inode(fd) in taken for fd in fds):
            _unmatched.discard(endpoint)        # its line has changed: now haproxy does take it over
        if same or held is None and endpoint not in _unmatched:
            _keep(listeners, claim, endpoint, (same or fds)[0])
        if endpoint in _unmatched:
            unheld.append('{} cannot be held: haproxy takes it over from nobody{}'.format(
                endpoint, ' (it does with `v6only` on the bind line)' if ':' in endpoint.address else ''))
    try:
        fresh = list(claim.sockets.items())
        claim.client.adopt([(endpoint, sock.fileno()) for endpoint, sock in fresh], lease=True)
        for endpoint in missed:
            # Those that this instance held go when the former generation has been told to finish.
            if endpoint not in listeners.held and claim.client.release([endpoint], lease=True) == ['claimed']:
                log.warning('{} is held for somebody else, and haproxy accepts on a socket of its own: half of '
                            'the clients hang until one of them is closed'.format(endpoint))
    except Error as error:
        log.warning('the binder does not hold what haproxy listens on: {}'.format(error))
    return unheld


def _keep(listeners, claim, endpoint, fd):
    """Put a listener into the claim: the very object if it is held already. A new one gets the longest queue:
    haproxy's own is as long as its maxconn, which a restart under load fills in no time."""
    held = listeners.held.get(endpoint)
    if held is not None and _inode(held.fileno()) == _inode(fd):
        claim.sockets[endpoint] = held
    else:
        sock = claim.sockets[endpoint] = socket.socket(endpoint.family(), socket.SOCK_STREAM, 0, os.dup(fd))
        with contextlib.suppress(OSError):
            listen(endpoint, sock)


def _by_address(listeners):
    """Return {(family, address): descriptors} of TCP listeners (Handed)."""
    found = {}
    for one in listeners:
        with _socket_of(one.fd) as sock:
            if sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type & socket.SOCK_STREAM:
                found.setdefault((sock.family, sock.getsockname(), one.interface), []).append(one.fd)
    return found


def _socket_of(fd):
    """Return a socket.socket of a copy of a descriptor, of the right family and type."""
    copy = os.dup(fd)
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, copy)) as probe:
        family = probe.getsockopt(socket.SOL_SOCKET, SO_DOMAIN)
        kind = probe.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
        return socket.socket(family, kind, 0, probe.detach())


def _name(fd):
    """Return the path (str) of a UNIX socket, '' for all others."""
    with _socket_of(fd) as sock:
        name = sock.getsockname() if sock.family == socket.AF_UNIX else ''
    return os.fsdecode(name)


def _inode(fd):
    return os.fstat(fd).st_ino


def _close_all(listeners):
    for one in listeners:
        os.close(one.fd)


def _unlink(path):
    try:
        os.unlink(path)
    except OSError:
        pass
