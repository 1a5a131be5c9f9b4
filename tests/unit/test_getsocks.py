"""HAProxy's exchange of listeners: both sides against each other, and against peers that break it."""

import gc
import os
import select
import socket
import struct
import threading

import pytest

from multibinder import adoption, getsocks, wire
from multibinder.endpoint import Endpoint
from multibinder.errors import Error, ProtocolError


DEADLINE = 20.0


def descriptors():
    gc.collect()        # what earlier tests have left is not to be closed while we count
    return len(os.listdir('/proc/self/fd'))


@pytest.fixture
def pair():
    before = descriptors()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.settimeout(DEADLINE)
    theirs.settimeout(DEADLINE)
    yield ours, theirs
    ours.close()
    theirs.close()
    assert descriptors() == before, 'no descriptor is left open'


def in_background(call, *arguments):
    thread = threading.Thread(target=call, args=arguments)
    thread.start()
    return thread


@pytest.mark.parametrize('count', [0, 1, 2, 251, 252, 253, 504, 600])
def test_both_sides(pair, count):
    ours, theirs = pair
    listeners = [
        getsocks.Handed(os.memfd_create(str(number)) if hasattr(os, 'memfd_create') else os.dup(0),
                        b'ns%d' % (number % 3) if number % 2 else b'', b'eth0' if number % 5 == 0 else b'', number)
        for number in range(count)]
    inodes = [os.fstat(one.fd).st_ino for one in listeners]
    serving = in_background(getsocks.serve, theirs, listeners, DEADLINE)
    found = getsocks.receive(ours)
    serving.join()
    assert [os.fstat(one.fd).st_ino for one in found] == inodes, 'told by what is behind them'
    assert [(one.namespace, one.interface, one.options) for one in found] == \
        [(one.namespace, one.interface, one.options) for one in listeners]
    assert not any(os.get_inheritable(one.fd) for one in found)
    for one in found + listeners:
        os.close(one.fd)


@pytest.mark.parametrize('said, reason', [
    (b'', 'it hands out none'),
    (b'Unknown command\n', 'does not know _getsocks'),
    (struct.pack('i', -1), 'does not know _getsocks'),
    (struct.pack('i', 1 << 30), 'does not know _getsocks'),
    (struct.pack('i', 2), 'announced 2 listeners and sent 0'),
])
def test_a_giver_that_gives_nothing(pair, said, reason):
    ours, theirs = pair
    theirs.sendall(said)
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(Error) as caught:
        getsocks.receive(ours)
    assert reason in str(caught.value)


@pytest.mark.parametrize('announced, sent, described, reason', [
    (3, 2, b'\0\0\0\0\0\0' * 2, 'announced 3 listeners and sent 2'),
    (1, 2, b'\0\0\0\0\0\0' * 2, 'announced 1 listeners and sent more'),
    (2, 2, b'\0\0\0\0\0\0' * 1, 'ends in the middle'),
    (1, 1, b'\xffshort', 'ends in the middle'),
])
def test_a_giver_that_miscounts(pair, announced, sent, described, reason):
    ours, theirs = pair
    theirs.sendall(struct.pack('i', announced))
    wire.send(theirs, described, [0] * sent)
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(ProtocolError) as caught:
        getsocks.receive(ours)
    assert reason in str(caught.value)


def test_a_giver_that_closes_behind_its_last_message(pair):
    """As haproxy does: there is nobody to acknowledge to."""
    ours, theirs = pair

    def give():
        theirs.recv(100)
        theirs.sendall(struct.pack('i', 1))
        wire.send(theirs, b'\0\0\0\0\0\0', [0])
        theirs.close()
    giving = in_background(give)
    found = getsocks.receive(ours)
    giving.join()
    assert len(found) == 1
    os.close(found[0].fd)


@pytest.mark.parametrize('asked', [b'', b'show info\n', b'_getsock', b'\n'])
def test_a_taker_that_asks_for_something_else(pair, asked):
    ours, theirs = pair
    ours.sendall(asked)
    ours.shutdown(socket.SHUT_WR)
    with pytest.raises(ProtocolError):
        getsocks.serve(theirs, [getsocks.Handed(0)])


def test_a_taker_that_goes_away(pair):
    ours, theirs = pair
    ours.sendall(getsocks.QUESTION)
    ours.shutdown(socket.SHUT_WR)
    with pytest.raises(ProtocolError) as caught:
        getsocks.serve(theirs, [getsocks.Handed(0)])
    assert 'went away' in str(caught.value)


def test_a_taker_that_says_nothing(pair):
    with pytest.raises(OSError):
        getsocks.serve(pair[1], [], timeout=0.05)


def test_an_offer_comes_and_goes(tmp_path):
    before = descriptors()
    path = str(tmp_path / 'offer')
    offer = getsocks.Offer(path, [getsocks.Handed(os.dup(0), b'', b'lo', 5)])
    assert os.stat(path).st_mode & 0o777 == 0o600
    with pytest.raises(Error) as caught:
        getsocks.Offer(path, [getsocks.Handed(os.dup(0))])
    assert 'Address already in use' in str(caught.value) and os.path.exists(path)
    for taken in (1, 2):
        accepting = in_background(lambda: select.select([offer], [], [], DEADLINE) and offer.accept())
        found = getsocks.ask(path)
        accepting.join()
        assert [(one.interface, one.options) for one in found] == [(b'lo', 5)] and offer.taken == taken
        os.close(found[0].fd)
    offer.close()
    offer.close()
    assert not os.path.exists(path) and descriptors() == before


def test_what_travels_is_what_the_bind_line_asks_for():
    """Up to 2.2 haproxy compares the options that come along with those of its line; and back again."""
    for endpoint, options in (
            (Endpoint.tcp('0.0.0.0', 80), 0), (Endpoint.tcp('::', 80), 0), (Endpoint.tcp('::1', 80), 0),
            (Endpoint.tcp('::', 80, v6only=True), getsocks.V6ONLY),
            (Endpoint.tcp('::', 80, v6only=False), getsocks.V4V6),
            (Endpoint.tcp('10.9.8.7', 80, transparent=True), getsocks.FOREIGN), (Endpoint.unix('/run/x'), 0)):
        handed = adoption.handed(endpoint, 0)
        assert handed.options == options, endpoint
        if not options & getsocks.FOREIGN:
            assert adoption.described(endpoint, options).options == endpoint.options
    told = Endpoint.tcp('::', 80, v6only=False)     # which is what the kernel says of any `bind :::80`
    assert adoption.described(told, 0).options == {}
    assert adoption.described(told, getsocks.V4V6).options == {'v6only': False}
    assert adoption.described(Endpoint.tcp('::', 80, v6only=True), 0).options == {'v6only': True}


def test_an_interface_travels():
    assert adoption.handed(Endpoint.tcp('0.0.0.0', 80, interface='eth1'), 0).interface == b'eth1'


def test_choosing_among_descriptors(tmp_path):
    before = descriptors()
    taken = adoption.Taken()
    listener = socket.socket()
    listener.bind(('127.0.0.1', 0))
    taken.add(os.dup(listener.fileno()))
    assert taken.listeners == [] and taken.left == [], 'bound is not yet listening'
    listener.listen(1)
    taken = adoption.Taken()
    datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagram.bind(('127.0.0.1', 0))
    temporary = socket.socket(socket.AF_UNIX)
    temporary.bind(str(tmp_path / 'web.4711.tmp'))
    temporary.listen(1)
    path = socket.socket(socket.AF_UNIX)
    path.bind(str(tmp_path / 'web'))
    path.listen(1)
    for sock in (listener, datagram, temporary, path, listener):    # the same one twice counts once
        taken.add(os.dup(sock.fileno()))
    taken.add(os.open('/dev/null', os.O_RDONLY))
    assert [str(endpoint) for endpoint, _ in taken.listeners] == [
        'tcp 127.0.0.1:{}'.format(listener.getsockname()[1]), 'unix {}'.format(tmp_path / 'web')]
    assert len(taken.left) == 2
    assert 'datagram' in taken.left[0] and taken.left[1].startswith('{} is known'.format(tmp_path / 'web'))
    taken.add(os.dup(listener.fileno()), b'blue')
    other = socket.socket()
    other.bind(('127.0.0.1', 0))
    other.listen(1)
    taken.add(os.dup(other.fileno()), b'blue')
    assert 'another network namespace (blue)' in taken.left[-1]
    taken.close()
    for sock in (listener, datagram, temporary, path, other):
        sock.close()
    assert descriptors() == before
