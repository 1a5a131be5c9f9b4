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
        self.paths = []         # what was asked for so far
        super().__init__((address, 0), Handler)
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, kwargs={'poll_interval': 0.05}, daemon=True).start()


class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        self.server.paths.append(self.request.recv(4096).split(b' ')[1])
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
    connection.settimeout(60)
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
    begun = time.monotonic()
    seen = observe(server.port, 100)
    assert seen['asked'] >= 90 and seen['ok'] == seen['asked'] and seen['failed'] == 0
    assert seen['answers'] == {'pid=1': seen['ok']}
    # Some milliseconds; on a machine that stands still for a while no more than that.
    assert seen['max_ms'] <= 1000 * (time.monotonic() - begun)


def test_ipv6():
    with Server(socket.AF_INET6, '::1') as server:
        with Traffic(None, {'t': ('::1', server.port, 200)}) as traffic:
            assert traffic.wait_new('t', ())[0] == 'pid=1'
            traffic.segment('s')
            time.sleep(0.1)
            seen = traffic.report()['t']
        server.shutdown()
    assert seen['ok'] == seen['asked'] > 0


# Short for the one that waits for it; for the others a request that was slow would be one more kind.
@pytest.mark.parametrize('behave, kind, timeout', [
    (reset, 'reset', 25), (cut, 'cut', 25), (bad, 'bad', 25), (silent, 'timeout', 0.5)])
def test_each_kind_of_failure_is_told(server, behave, kind, timeout):
    server.behave = behave
    seen = observe(server.port, timeout=timeout)
    assert seen['failed'] == seen['asked'] > 0 and seen['kinds'] == {kind: seen['failed']}
    assert seen['examples'][0].startswith(kind)
    assert seen['gap_ms'] >= 90


def test_refused():
    with socket.socket() as closed:
        closed.bind(('127.0.0.1', 0))
        seen = observe(closed.getsockname()[1])
    assert seen['kinds'] == {'refused': seen['asked']}


def test_a_stall_shows_in_the_gap_and_in_the_latencies_of_all_that_waited(server):
    begins, ends = threading.Event(), threading.Event()
    turn = threading.Lock()

    def behave(connection):
        # One at a time: nobody who came before the last one answers after it.
        with turn:
            if not begins.is_set():
                answer(connection)
                return
            if not last_one:
                last_one.append(connection)
                connection.sendall(ANSWER.replace(b'pid=1', b'pid=2'))
                return
        ends.wait()
        connection.sendall(ANSWER.replace(b'pid=1', b'pid=3'))

    last_one = []
    server.behave = behave
    with Traffic(None, {'t': ('127.0.0.1', server.port, 200)}, timeout=25) as traffic:
        traffic.wait_new('t', ())
        traffic.segment('s')
        begins.set()
        # The last answer before the stall and the first one after it tell how long it was, whatever the machine does.
        _, last = traffic.wait_new('t', {'pid=1'})
        time.sleep(1)
        ends.set()
        _, first = traffic.wait_new('t', {'pid=1', 'pid=2'})
        seen = traffic.report()['t']
    stall = 1000 * (first - last)
    assert seen['failed'] == 0
    assert stall >= 1000 and 0.75 * stall <= seen['gap_ms'] <= stall + 1
    # Nearly all were due in the stall; on average each waited for half of it, the first for all of it.
    assert seen['p50_ms'] >= 100 and seen['p99_ms'] >= 500
    assert sum(seen['answers'].values()) == seen['asked'] >= 150


def test_slow_answers_are_kept_in_flight_and_a_cut_one_is_seen():
    # The server stands for a proxy that passes /slow on, and that is killed in the middle.
    killed = threading.Event()

    def proxy(connection):
        connection.sendall(b'HTTP/1.0 200 OK\r\nContent-Length: 100\r\n\r\n' + 50 * b'.')
        killed.wait(60)
        if not cutting:
            connection.sendall(50 * b'.')

    for cutting in (False, True):
        killed.clear()
        # One for each: the load that ends may have asked once more, and is not to be counted in the next.
        with Server() as server:
            server.behave = proxy
            # The server behind is asked for nothing here: any port will do for it.
            with Traffic(None, {'t': ('127.0.0.1', server.port, 1)}, slow=5, slow_seconds=0.1, backend=0,
                         timeout=25) as traffic:
                traffic.segment('s')
                deadline = time.monotonic() + 20
                while server.paths.count(b'/slow') < 5:
                    assert time.monotonic() < deadline, server.paths
                    time.sleep(0.01)
                killed.set()
                seen = traffic.report()['t']
            server.shutdown()
        assert (seen['slow']['cut'] >= 5) == cutting
        assert (seen['slow']['ok'] >= 5) != cutting
