"""Who claims what, and how long an unclaimed listener lingers: decisions, with moments passed in."""

import socket

import pytest

from multibinder.endpoint import Endpoint
from multibinder.inventory import Inventory
from multibinder.listening import close_listener, is_listening, open_listener


class Holder(object):
    pid = 1


@pytest.fixture
def listener_of():
    """Makes inventories' listeners on ports of the kernel's choice and closes what a test has left."""
    made = []

    def make(inventory, now=0.0):
        sock = socket.socket()
        sock.bind(('127.0.0.1', 0))
        sock.listen(1)
        made.append(sock)
        return inventory.add(Endpoint.tcp('127.0.0.1', sock.getsockname()[1]), sock, now)
    yield make
    for sock in made:
        sock.close()


def test_an_unclaimed_listener_lingers_and_a_claim_in_time_keeps_it(listener_of):
    inventory = Inventory(30)
    listener = listener_of(inventory, 100.0)
    assert inventory.next_expiry() == 130.0 and inventory.expired(129.9) == []
    holder = Holder()
    assert inventory.lease(listener, holder) and not inventory.lease(listener, holder)
    assert inventory.next_expiry() is None and inventory.expired(1e9) == []
    assert inventory.holder_gone(holder, 200.0) == [listener]
    assert inventory.holder_gone(holder, 200.0) == []
    assert inventory.expired(229.9) == [] and inventory.expired(230.0) == [listener]
    sock = listener.sock
    inventory.drop(listener)
    assert sock.fileno() == -1 and len(inventory) == 0 and inventory.next_expiry() is None
    assert inventory.find(listener.endpoint) is None


def test_a_claim_for_good_outlives_every_lease(listener_of):
    inventory = Inventory(0)
    listener = listener_of(inventory)
    holder = Holder()
    inventory.lease(listener, holder)
    assert inventory.claim(listener, 7) and not inventory.claim(listener, 8)
    assert listener.plain == 8      # the last one to ask is who is shown
    inventory.holder_gone(holder, 5.0)
    assert listener.claimed and inventory.expired(1e9) == []
    assert inventory.end_claim(listener, 6.0) and not inventory.end_claim(listener, 6.0)
    assert inventory.expired(6.0) == [listener]     # linger 0: at once


def test_two_leases_end_one_by_one(listener_of):
    inventory = Inventory(10)
    listener = listener_of(inventory)
    one, two = Holder(), Holder()
    inventory.lease(listener, one)
    inventory.lease(listener, two)
    assert inventory.leased_by(one) == [listener] and inventory.has_lease(two)
    inventory.end_lease(listener, one, 1.0)
    assert not inventory.end_lease(listener, one, 1.0)
    assert listener.claimed and not inventory.has_lease(one)
    inventory.end_lease(listener, two, 2.0)
    assert listener.idle_since == 2.0


def test_a_claimed_listener_cannot_be_dropped(listener_of):
    inventory = Inventory(0)
    listener = listener_of(inventory)
    inventory.claim(listener, 1)
    with pytest.raises(AssertionError):
        inventory.drop(listener)
    assert is_listening(listener.sock)


def test_closing_takes_the_socket_out_of_listen_for_every_copy():
    probe = socket.socket()
    probe.bind(('127.0.0.1', 0))
    port = probe.getsockname()[1]
    probe.close()
    endpoint = Endpoint.tcp('127.0.0.1', port)
    sock = open_listener(endpoint)
    copy = sock.dup()
    with copy:
        close_listener(endpoint, sock)
        assert not is_listening(copy)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(('127.0.0.1', port), 20)


def test_a_unix_listener_closes_with_its_file_but_not_with_somebody_elses(tmp_path):
    path = str(tmp_path / 'sock')
    endpoint = Endpoint.unix(path, mode='0640')
    sock = open_listener(endpoint)
    assert (tmp_path / 'sock').stat().st_mode & 0o777 == 0o640
    close_listener(endpoint, sock)
    assert list(tmp_path.iterdir()) == []
    first = open_listener(endpoint)
    (tmp_path / 'sock').unlink()
    with open_listener(endpoint):
        close_listener(endpoint, first)
        assert (tmp_path / 'sock').exists()
        client = socket.socket(socket.AF_UNIX)
        with client:
            client.connect(path)
