"""Strangers on the control socket: whatever they send, each gets an answer or is closed, the others are
served meanwhile, and no descriptor is left."""

import array
import json
import os
import socket
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'process'))

hypothesis = pytest.importorskip('hypothesis')
from hypothesis import HealthCheck, given, settings, strategies as st   # noqa: E402

from multibinder import wire    # noqa: E402
from multibinder.client import Client   # noqa: E402
from multibinder.endpoint import Endpoint   # noqa: E402
from multibinder.errors import EndpointError, ProtocolError     # noqa: E402
from running import DEADLINE, Binder    # noqa: E402

PROFILE = settings(max_examples=150, deadline=None, database=None,
                   suppress_health_check=list(HealthCheck))

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=8)
# Only loopback addresses that can be bound: a listener anywhere else is none of a test's business.
ADDRESSES = st.sampled_from(['127.0.0.1', '127.1.2.3', '::1', 'localhost', '[::1]', '::ffff:127.0.0.1', '127.0.0.1\0',
                             '999.1.1.1', '\ud800', 'x' * 300]) | st.text(alphabet='1.:ffx%[]', max_size=12).filter(
                                 lambda text: text not in ('', '::', '::0', '*', '[::]'))
PORTS = st.integers(20000, 20040) | JSON
OPTIONS = st.dictionaries(st.sampled_from(['backlog', 'v6only', 'freebind', 'interface', 'lease', 'mode', 'x', 'path']),
                          JSON, max_size=2)
PARAMS = st.builds(lambda address, port, options: dict(options, address=address, port=port), ADDRESSES, PORTS, OPTIONS)
REQUESTS = st.fixed_dictionaries({
    'jsonrpc': st.just('2.0') | JSON,
    'method': st.sampled_from(['bind', 'release', 'adopt', 'list', 'status', 'nope']) | JSON,
    'id': JSON,
    'params': st.lists(PARAMS, max_size=3) | JSON,
})


def encoded(value):
    return json.dumps(value, allow_nan=True).encode()


MESSAGES = REQUESTS.map(encoded) | st.binary(max_size=80) | JSON.map(encoded) | st.just(b'{"method":') | st.just(b' \r\n')


@PROFILE
@given(st.lists(MESSAGES, max_size=6).map(b''.join), st.lists(st.integers(1, 40), max_size=30))
def test_the_splitter_finds_the_same_in_every_cut(stream, cuts):
    def run(pieces):
        splitter = wire.Splitter()
        found = []
        for piece in pieces:
            found += splitter.feed(piece)
        assert splitter.broken is None or isinstance(splitter.broken, ProtocolError)
        return found
    pieces, position = [], 0
    for cut in cuts:
        pieces.append(stream[position:position + cut])
        position += cut
    pieces.append(stream[position:])
    one_by_one = run([stream[index:index + 1] for index in range(len(stream))])
    in_pieces = run(pieces)
    assert encoded(one_by_one) == encoded(in_pieces)


@PROFILE
@given(JSON | PARAMS)
def test_an_endpoint_or_a_sentence(params):
    try:
        endpoint = Endpoint.from_params(params)
    except EndpointError as error:
        assert str(error)
        return
    assert Endpoint.parse(endpoint.name) == endpoint == Endpoint.from_params(endpoint.to_params())


@PROFILE
@given(st.text(max_size=30))
def test_any_text_is_an_endpoint_or_a_sentence(text):
    try:
        endpoint = Endpoint.parse(text)
    except EndpointError as error:
        assert str(error)
        return
    assert Endpoint.parse(endpoint.name) == endpoint


@pytest.fixture(scope='module')
def binder():
    with Binder('--linger', '0') as running, open(os.devnull) as null:
        running.null = null
        yield running


@PROFILE
@given(st.lists(st.tuples(MESSAGES, st.integers(0, 3), st.booleans()), max_size=8))
def test_the_binder_serves_on_and_leaks_nothing(binder, steps):
    with Client(binder.path, timeout=DEADLINE) as good:
        with socket.socket(socket.AF_UNIX) as bad:
            bad.connect(binder.path)
            bad.settimeout(DEADLINE)
            for data, fds, look in steps:
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [binder.null.fileno()] * fds))]
                try:
                    if data:
                        bad.sendmsg([data], rights if fds else [])
                except ConnectionError:
                    break
                if look:
                    assert good.call('status')['pid'] == binder.pid
        # What was claimed for good stays; everything else is gone with its connection.
        for one in good.call('list'):
            good.release([Endpoint.parse(one['endpoint'])], lease=False)
        settled(binder, good)


def settled(binder, good):
    """Wait until the binder has seen the end of the other connection, then count its descriptors."""
    for _ in range(10000):
        status = good.call('status')
        if status['connections'] == 1 and status['listeners'] == 0:
            break
        for one in good.call('list'):
            # A claim of a process is ours, too: every connection here is this process's.
            kinds = {claim['kind'] for claim in one['claims']}
            good.release([Endpoint.parse(one['endpoint'])], lease='process' if 'process' in kinds else False)
    else:
        raise AssertionError(status)
    # 0, 1, 2, the control socket, epoll, both ends of the signal pipe, and this connection
    assert len(binder.descriptors()) == 8, binder.descriptors()
    assert 'internal error' not in binder.output
