"""The load generator sees what it is meant to see: each kind of failure, a stall, a cut answer."""

import socket
import socketserver
import struct
import threading
import time

import pytest

from traffic import Traffic

ANSWER = b'HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\npid=1\n'


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Answers as its `behave(connection)` says; by default in full."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, family=socket.AF_INET, address='127.0.0.1'):
        self.address_family = family
        self.behave = answer
        super().__init__((address, 0), Handler)
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, kwargs={'poll_interval': 0.05}, daemon=True).start()


class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.recv(4096)
        self.server.behave(self.request)


def answer(connection):
    connection.sendall(ANSWER)


def reset(connection):
    # A close with SO_LINGER 0 is an RST.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    connection.close()


def cut(connection):
    connection.sendall(ANSWER[:-3])


def bad(connection):
    connection.sendall(b'HTTP/1.0 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n')


def silent(connection):
    connection.settimeout(10)
    try:
        connection.recv(1)
    except OSError:
        pass


@pytest.fixture
def server():
    with Server() as server:
        yield server
        server.shutdown()


def observe(port, count=20, rate=200, **options):
    """What a load on a port looks like, after at least `count` requests."""
    with Traffic(None, {'t': ('127.0.0.1', port, rate)}, **options) as traffic:
        traffic.segment('s')
        time.sleep(count / rate)
        return traffic.report()['t']


def test_a_good_server_loses_nothing(server):
    seen = observe(server.port, 100)
    assert seen['asked'] >= 90 and seen['ok'] == seen['asked'] and seen['failed'] == 0
    assert seen['answers'] == {'pid=1': seen['ok']}
    assert seen['max_ms'] < 1000


def test_ipv6():
    with Server(socket.AF_INET6, '::1') as server:
        with Traffic(None, {'t': ('::1', server.port, 200)}) as traffic:
            assert traffic.wait_new('t', ())[0] == 'pid=1'
            traffic.segment('s')
            time.sleep(0.1)
            seen = traffic.report()['t']
        server.shutdown()
    assert seen['ok'] == seen['asked'] > 0


@pytest.mark.parametrize('behave, kind', [(reset, 'reset'), (cut, 'cut'), (bad, 'bad'), (silent, 'timeout')])
def test_each_kind_of_failure_is_told(server, behave, kind):
    server.behave = behave
    seen = observe(server.port, timeout=0.5)
    assert seen['failed'] == seen['asked'] > 0 and seen['kinds'] == {kind: seen['failed']}
    assert seen['examples'][0].startswith(kind)
    assert seen['gap_ms'] >= 90


def test_refused():
    with socket.socket() as closed:
        closed.bind(('127.0.0.1', 0))
        seen = observe(closed.getsockname()[1])
    assert seen['kinds'] == {'refused': seen['asked']}


def test_a_stall_shows_in_the_gap_and_in_the_latencies_of_all_that_waited(server):
    stall = threading.Event()

    def behave(connection):
        stall.wait()
        answer(connection)

    server.behave = behave
    stall.set()
    with Traffic(None, {'t': ('127.0.0.1', server.port, 200)}) as traffic:
        traffic.wait_new('t', ())
        traffic.segment('s')
        stall.clear()
        time.sleep(0.4)
        stall.set()
        time.sleep(0.4)
        seen = traffic.report()['t']
    assert seen['failed'] == 0
    assert 380 <= seen['gap_ms'] <= 700
    # Half of the requests were due in the stall; on average each waited for half of it.
    assert 60 <= seen['p50_ms'] + 100 and seen['p99_ms'] >= 300
    assert sum(seen['answers'].values()) == seen['asked'] >= 150


def test_slow_answers_are_kept_in_flight_and_a_cut_one_is_seen(server):
    # The server stands for a proxy that passes /slow on, and that is killed in the middle.
    killed = threading.Event()

    def proxy(connection):
        connection.sendall(b'HTTP/1.0 200 OK\r\nContent-Length: 100\r\n\r\n' + 50 * b'.')
        killed.wait(5)
        if not cutting:
            connection.sendall(50 * b'.')

    for cutting in (False, True):
        killed.clear()
        server.behave = proxy
        with Traffic(None, {'t': ('127.0.0.1', server.port, 1)}, slow=5, slow_seconds=0.1, backend=free_port()) as traffic:
            traffic.segment('s')
            time.sleep(0.5)
            killed.set()
            seen = traffic.report()['t']
        assert (seen['slow']['cut'] >= 5) == cutting
        assert (seen['slow']['ok'] >= 5) != cutting


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]
