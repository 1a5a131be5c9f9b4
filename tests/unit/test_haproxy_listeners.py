"""An instance's side of the binder, against a binder that fails at chosen moments."""

import socket

import pytest

from multibinder.endpoint import Endpoint
from multibinder.errors import BinderAway, ReplyError
from multibinder.haproxy.listeners import Listeners


class Loop(object):
    """Timers and watched connections, moved by the test."""

    def __init__(self):
        self.timers = {}
        self.watched = {}

    def watch(self, source, callback):
        assert not source.closed
        assert source not in self.watched
        self.watched[source] = callback

    def forget(self, source):
        self.watched.pop(source, None)

    def at(self, name, when, callback):
        self.timers.pop(name, None)
        if when is not None:
            self.timers[name] = callback

    def fire(self):
        for name, callback in list(self.timers.items()):
            del self.timers[name]
            callback()


class Binder(object):
    """What clients share: whether it is there, and what it holds."""

    def __init__(self):
        self.away = False
        self.refuses = False
        self.held = {}
        self.asked = []
        self.leases = {}
        self.clients = []
        self.path = '/a'

    def connect(self, path, timeout):
        if self.away or path != self.path:
            raise BinderAway('cannot reach the binder on {}'.format(path))
        client = Client(self, path)
        self.clients.append(client)
        return client


class Client(object):
    def __init__(self, binder, path):
        self.binder = binder
        self.path = path
        self.closed = False

    def _ask(self):
        assert not self.closed
        if self.binder.away:
            self.close()
            raise BinderAway('gone')

    def close(self):
        self.closed = True
        self.binder.leases.pop(self, None)

    def bind_all(self, endpoints, lease):
        self._ask()
        if self.binder.refuses:
            raise ReplyError(10000, 'cannot bind')
        self.binder.asked.append([endpoint.port for endpoint in endpoints])
        self.binder.leases.setdefault(self, set()).update(endpoints)
        return [self.binder.held.setdefault(endpoint, socket.socket()).dup() for endpoint in endpoints]

    def adopt(self, listeners, lease):
        self._ask()
        outcomes = []
        for endpoint, fileno in listeners:
            self.binder.leases.setdefault(self, set()).add(endpoint)
            outcomes.append('held' if endpoint in self.binder.held else 'adopted')
            self.binder.held.setdefault(endpoint, socket.socket())
        return outcomes

    def release(self, endpoints, lease):
        self._ask()
        for endpoint in endpoints:
            self.binder.leases[self].discard(endpoint)


class Path(object):
    def __init__(self, binder):
        self.binder = binder

    def now(self):
        return self.binder.path


A, B, C = [Endpoint.tcp('127.0.0.1', port) for port in (1, 2, 3)]


@pytest.fixture
def binder():
    made = Binder()
    yield made
    for sock in made.held.values():
        sock.close()


@pytest.fixture
def listeners(binder):
    made = Listeners(Loop(), Path(binder), 0.0, binder.connect)
    yield made
    made.close()


def claim(listeners, *endpoints):
    generator = listeners.claim(list(endpoints))
    try:
        while True:
            next(generator)
    except StopIteration as end:
        return end.value


def leased(binder):
    return set().union(*binder.leases.values()) if binder.leases else set()


def open_sockets(claimed):
    return {endpoint for endpoint, sock in claimed.sockets.items() if sock.fileno() >= 0}


def test_only_what_is_new_is_asked_for(listeners, binder):
    first = claim(listeners, A, B, A)
    listeners.commit(first)
    assert binder.asked == [[1, 2]]
    second = claim(listeners, A, B, C)
    assert binder.asked[1:] == [[3]]
    assert second.sockets[A] is first.sockets[A]
    listeners.commit(second)
    listeners.commit(claim(listeners, A, B, C))
    assert binder.asked[2:] == [[1]], 'one is always asked for: is the binder there?'
    assert leased(binder) == {A, B, C} and open_sockets(second) == {A, B, C}
    changed = Endpoint.tcp('127.0.0.1', 2, backlog=7)
    listeners.commit(claim(listeners, A, changed, C))
    assert binder.asked[3:] == [[2]]


def test_dropped_are_given_up_and_closed(listeners, binder):
    first = claim(listeners, A, B)
    listeners.commit(first)
    listeners.commit(claim(listeners, A))
    assert leased(binder) == {A} and open_sockets(first) == {A}


def test_abandoned_claim(listeners, binder):
    first = claim(listeners, A)
    listeners.commit(first)
    second = claim(listeners, A, B)
    listeners.abandon(second)
    assert leased(binder) == {A} and open_sockets(first) == {A} and open_sockets(second) == {A}


def test_refused_claim(listeners, binder):
    listeners.commit(claim(listeners, A))
    binder.refuses = True
    with pytest.raises(ReplyError):
        claim(listeners, A, B)
    assert leased(binder) == {A} and list(listeners.held) == [A]


def test_binder_lost_between_claim_and_commit(listeners, binder):
    listeners.commit(claim(listeners, A))
    second = claim(listeners, A, B)
    binder.held = {}
    binder.clients[0].close()
    listeners._gone()
    listeners.commit(second)
    assert leased(binder) == set()
    listeners._loop.fire()
    assert leased(binder) == {A, B}


def test_binder_lost_and_found_between_claim_and_commit(listeners, binder):
    listeners.commit(claim(listeners, A))
    second = claim(listeners, A, B)
    binder.clients[0].close()
    listeners._gone()
    listeners._loop.fire()
    assert leased(binder) == {A}
    listeners.commit(second)
    assert leased(binder) == {A, B}


def test_binder_lost_between_claim_and_abandon(listeners, binder):
    listeners.commit(claim(listeners, A))
    second = claim(listeners, A, B)
    binder.away = True
    listeners._gone()
    listeners.abandon(second)
    listeners._loop.fire()
    assert listeners._loop.timers
    binder.away = False
    listeners._loop.fire()
    assert leased(binder) == {A} and not listeners._loop.timers


def test_release_finds_the_binder_gone(listeners, binder):
    listeners.commit(claim(listeners, A, B))
    second = claim(listeners, A)
    binder.away = True
    listeners.commit(second)
    assert list(listeners.held) == [A] and listeners._loop.timers
    binder.away = False
    listeners._loop.fire()
    assert leased(binder) == {A}


def test_binder_away_at_a_claim(listeners, binder):
    binder.away = True
    with pytest.raises(BinderAway, match='cannot reach the binder on /a; given up after 0 s'):
        claim(listeners, A)


def test_binder_found_gone_by_a_claim(listeners, binder):
    listeners.commit(claim(listeners, A))
    binder.away = True
    with pytest.raises(BinderAway):
        claim(listeners, A)
    assert list(listeners.held) == [A] and listeners._loop.timers
    binder.away = False
    listeners.commit(claim(listeners, A, B))
    assert leased(binder) == {A, B} and not listeners._loop.timers
    assert len(listeners._loop.watched) == 1


def test_moved_binder(listeners, binder):
    listeners.commit(claim(listeners, A))
    binder.path = '/b'
    abandoned = claim(listeners, A, B)
    listeners.abandon(abandoned)
    assert [client.closed for client in binder.clients] == [False, True]
    listeners.commit(claim(listeners, A, B))
    assert [client.closed for client in binder.clients] == [True, True, False]
    assert leased(binder) == {A, B}


def test_nothing_to_claim(listeners, binder):
    listeners.commit(claim(listeners))
    assert binder.asked == [] and listeners.held == {}


def test_close(listeners, binder):
    first = claim(listeners, A)
    listeners.commit(first)
    listeners.close()
    listeners.close()
    assert leased(binder) == set() and open_sockets(first) == set()
